"""Writes random articles: which parts follow each other, and what is in them."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from data_pipelines.documents import sides
from data_pipelines.documents.corpus import PUNCTUATION, label_of, words_of
from data_pipelines.documents.formulas import Formula, display_formula, inline_formula
from data_pipelines.documents.page_tree import (
    Block,
    Equation,
    Heading,
    Listing,
    Paragraph,
    Table,
    markdown,
)

# What an article may be made of, and how often.
_SHARES = {"paragraphs": 0.5, "lists": 0.12, "tables": 0.16, "formulas": 0.22}
PARTS = tuple(_SHARES)
_HEADING = 0.25  # chance of one before a part
_INLINE = 0.3  # chance of a formula in a sentence
_CELL = 12  # characters of a table's cell at most


@dataclasses.dataclass(frozen=True)
class Part:
    """A block, the lines that it takes, about, and the texts that no page of the other side may show."""

    block: Block
    lines: float
    made_of: tuple[str, ...]


class Writer:
    """Writes one article.

    Args:
      texts: its sentences; each is used once.
      key: of the item: its side decides which sentences, tables and formulas there are.
      held_out_texts: see `sides`.
      characters: of a line, about.
      numbered: whether headings and equations have numbers.
      rng: draws all.
    """

    def __init__(
        self,
        texts: tuple[str, ...],
        key: str,
        held_out_texts: float,
        *,
        characters: int,
        numbered: bool,
        rng: np.random.Generator,
    ):
        self._texts, self._key, self._fraction = texts, key, held_out_texts
        self._characters, self._numbered, self._rng = characters, numbered, rng
        self._sentences = sides.of_side(texts, key, held_out_texts, rng)
        self._sections = [0, 0]
        self._equations = 0

    def write(self, parts: tuple[str, ...], lines: float) -> list[Part]:
        """A title and parts until the lines are full, or no sentence is left.

        Args:
          parts: some of `PARTS`.
          lines: how many to fill.
        """
        write = {
            "paragraphs": self._paragraph,
            "lists": self._listing,
            "tables": self._table,
            "formulas": self._formula,
        }
        shares = np.array([_SHARES[part] for part in parts])
        found = [self._heading(1)]
        while found[-1] and sum(part.lines for part in found if part) < lines:
            if self._rng.random() < _HEADING:
                found.append(self._heading(2 if self._rng.random() < 0.7 else 3))
            kind = parts[int(self._rng.choice(len(parts), p=shares / shares.sum()))]
            found.append(write[kind]())
        return [part for part in found if part]

    def _heading(self, level: int) -> Part | None:
        sentence = next(self._sentences, None)
        if sentence is None:
            return None
        words, between = words_of(sentence)
        count = int(self._rng.integers(2, 7))
        text = between.join(words[: count if between else 2 * count]).strip(PUNCTUATION + " ")
        return Part(Heading(level, self._number(level) + text), 2.5, (sentence,))

    def _number(self, level: int) -> str:
        """Such as `2.1 `; the title has none."""
        if level == 1 or not self._numbered:
            return ""
        section, below = self._sections
        self._sections = [section + 1, 0] if level == 2 else [max(1, section), below + 1]
        return ".".join(str(n) for n in self._sections[: level - 1]) + " "

    def _paragraph(self) -> Part | None:
        sentences = self._some_sentences(2, 6)
        if not sentences:
            return None
        tokens: list[str | Formula] = []
        made_of = list(sentences)
        between = ""
        for sentence in sentences:
            words, between = words_of(sentence)
            if self._rng.random() < _INLINE:
                formula = self._drawn(inline_formula)
                made_of.append(formula.latex)
                place = int(self._rng.integers(1, max(2, len(words))))  # not after the full stop
                tokens += [*words[:place], formula, *words[place:]]
            else:
                tokens += words
        block = Paragraph(_joined(tokens, between))
        return Part(block, self._lines([block]) + 0.5, tuple(made_of))

    def _listing(self) -> Part | None:
        items = self._some_sentences(2, 5)
        if not items:
            return None
        block = Listing(items, numbered=bool(self._rng.random() < 0.5))
        return Part(block, sum(1 + len(item) // self._characters for item in items) + 1, items)

    def _table(self) -> Part:
        rng, table = self._rng, Table(("",), ())

        def draw() -> str:
            nonlocal table
            columns = int(rng.integers(2, max(3, min(5, self._characters // 9) + 1)))
            longest = max(4, min(_CELL, self._characters // columns - 2))
            numbers = [rng.random() < 0.6 for _ in range(columns)]
            header = tuple(label_of(self._texts, longest, rng) for _ in range(columns))
            rows = tuple(
                tuple(
                    _figure(rng) if number else label_of(self._texts, longest, rng)
                    for number in numbers
                )
                for _ in range(int(rng.integers(2, 7)))
            )
            table = Table(header, rows)
            return markdown([table])

        text = sides.drawn_text(draw, self._key, self._fraction)
        return Part(table, 1.7 * len(table.rows) + 3, (text,))

    def _formula(self) -> Part:
        formula = self._drawn(display_formula)
        self._equations += self._numbered
        return Part(
            Equation(formula, str(self._equations) if self._numbered else ""), 3, (formula.latex,)
        )

    def _drawn(self, draw: Callable[[np.random.Generator], Formula]) -> Formula:
        formula = Formula("", "")

        def latex() -> str:
            nonlocal formula
            formula = draw(self._rng)
            return formula.latex

        sides.drawn_text(latex, self._key, self._fraction)
        return formula

    def _some_sentences(self, fewest: int, most: int) -> tuple[str, ...]:
        count = int(self._rng.integers(fewest, most + 1))
        return tuple(itertools.islice(self._sentences, count))

    def _lines(self, blocks: list[Block]) -> float:
        return len(markdown(blocks)) / self._characters


def _joined(tokens: list[str | Formula], between: str) -> tuple[str | Formula, ...]:
    """Words to strings, with what stands between words also around formulas."""
    parts: list[str | Formula] = []
    text = ""
    for place, token in enumerate(tokens):
        text += between if place else ""
        if isinstance(token, str):
            text += token
            continue
        parts += [text, token] if text else [token]
        text = ""
    return tuple([*parts, text] if text else parts)


def _figure(rng: np.random.Generator) -> str:
    """A number as tables have them."""
    kind = int(rng.integers(3))
    if kind == 0:
        return str(rng.integers(0, 1000))
    if kind == 1:
        return f"{rng.uniform(0, 100):.{int(rng.integers(1, 3))}f}"
    return f"{rng.uniform(0, 100):.1f}%"
