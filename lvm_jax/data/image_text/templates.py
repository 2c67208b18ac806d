"""Templates: how a conversation becomes a row of tokens, and which of them are to be learnt.

| template | row; what is learnt stands in [ ] |
|---|---|
| opt | BOS, picture, `\\n`, [answer `\\n` EOS] |
| vicuna_v1 | BOS, system ` `, then each turn: `USER: ` question ` ASSISTANT:` [` ` answer EOS] |
| mpt | START `system\\n` system EOS, then each turn: START `user\\n` question EOS START `assistant\\n` [answer EOS] |

A picture is `image_start`, N times `image_patch`, `image_end`. `opt` is Vary-tiny's (arXiv 2312.06109, section 3.2): it
shows the pictures and leaves the words of the question out. `mpt` is Vary-base's, `vicuna_v1` that of its Vicuna
version. A prompt, whose last answer is wanted, is the same row up to that answer.

A template gives pieces, and each is tokenized by itself: the ids before an answer do not depend on it, so training and
generation see the same, and what is learnt is known by construction.

Shape legend: L tokens of a row, I pictures, N patches of a picture.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float32, Int32

from lvm_jax.data.image_text.conversation import PLACEHOLDER, BadConversation, Conversation, Turn
from lvm_jax.data.text_tokenizer import Settings, TextTokenizer
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Words:
    """Text, learnt or not."""

    text: str
    learnt: bool = False


@dataclasses.dataclass(frozen=True)
class Special:
    """A special token by its name in the settings, learnt or not."""

    name: str
    learnt: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """The place of the next picture."""


Piece = Words | Special | Picture
# The special tokens of a picture, which every template shows.
PICTURE = ("image_start", "image_patch", "image_end")


@dataclasses.dataclass(frozen=True)
class Template:
    """A kind of row.

    Attributes:
      pieces: of a conversation.
      needs: optional specials that the settings must name, besides those of a picture.
      before, after: text that is learnt around the words of an answer.
      words: all text that the template itself writes, for a tokenizer made to fit it.
      asks: whether a row has the words of its questions.
    """

    pieces: Callable[[Conversation, Settings], Iterator[Piece]]
    needs: tuple[str, ...]
    before: str = ""
    after: str = ""
    words: str = ""
    asks: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A row before padding.

    Attributes:
      tokens: ids.
      loss_weights: 1 where a token is to be learnt, else 0.
      image_places: where the patches of each picture stand in `tokens`.
      truncated: whether it was cut to the longest length.
    """

    tokens: Int32[np.ndarray, " L"]
    loss_weights: Float32[np.ndarray, " L"]
    image_places: Int32[np.ndarray, "I N"]
    truncated: bool


def render(
    conversation: Conversation, tokenizer: TextTokenizer, image_tokens: int, max_tokens: int
) -> Row:
    """The row of a conversation, in the template that the tokenizer's settings name.

    A row that is too long is cut; it then ends with EOS behind the last token that is learnt, as published.

    Args:
      conversation: with all its answers, or a prompt.
      tokenizer: gives the ids.
      image_tokens: patches of a picture, N.
      max_tokens: the longest row.

    Raises:
      BadConversation: the template cannot show it, or no answer is left after the cut.
      UnknownCharacters: see `TextTokenizer.encode`.
      UserError: no such template, or the settings lack a special that it needs.
    """
    template = template_of(tokenizer)
    ids: list[int] = []
    weights: list[float] = []
    places: list[range] = []
    for piece in _joined(template.pieces(conversation, tokenizer.settings)):
        if isinstance(piece, Picture):
            start = len(ids) + 1
            patches = [tokenizer.ids["image_patch"]] * image_tokens
            new = [tokenizer.ids["image_start"], *patches, tokenizer.ids["image_end"]]
            places.append(range(start, start + image_tokens))
        else:
            new = (
                tokenizer.encode(piece.text)
                if isinstance(piece, Words)
                else [tokenizer.ids[piece.name]]
            )
        learnt = not isinstance(piece, Picture) and piece.learnt
        ids += new
        weights += [float(learnt)] * len(new)
    truncated = len(ids) > max_tokens
    if truncated:
        ids, weights = _cut(ids, weights, tokenizer.ids["eos"], max_tokens)
        if places and places[-1].stop >= len(ids):
            raise BadConversation(
                f"its pictures take {places[-1].stop + 1} tokens, the context has {max_tokens}: show fewer of them, or "
                "give the model a longer context"
            )
    return Row(
        np.array(ids, np.int32),
        np.array(weights, np.float32),
        np.array(places, np.int32).reshape(len(places), image_tokens),
        truncated,
    )


def template_named(name: str) -> Template:
    """The template of this name.

    Raises:
      UserError: there is none; the message suggests the nearest.
    """
    if name not in TEMPLATES:
        close = difflib.get_close_matches(name, TEMPLATES, n=1) or [", ".join(TEMPLATES)]
        raise UserError(f"the template is {name!r}; did you mean {close[0]}?")
    return TEMPLATES[name]


def template_of(tokenizer: TextTokenizer) -> Template:
    """The template that a tokenizer's settings name.

    Raises:
      UserError: they name none, there is none of that name, or they lack a special that it needs.
    """
    name = tokenizer.settings.template
    if not name:
        raise UserError(
            f"the settings of {tokenizer.folder} name no template: add one of {', '.join(TEMPLATES)}"
        )
    template = template_named(name)
    for need in (*template.needs, *PICTURE):
        if need not in tokenizer.ids:
            raise UserError(
                f"the template {name!r} needs the token {need!r}, which the settings of {tokenizer.folder} do not "
                "name: add it"
            )
    return template


def answer_of(ids: Sequence[int], tokenizer: TextTokenizer) -> str:
    """The words of an answer, given its ids up to EOS or the end; inverts what a template puts around them."""
    template = template_of(tokenizer)
    until = itertools.takewhile(lambda id: id != tokenizer.ids["eos"], ids)
    return tokenizer.decode(list(until)).removeprefix(template.before).removesuffix(template.after)


def _opt(conversation: Conversation, settings: Settings) -> Iterator[Piece]:
    del settings
    if len(conversation.turns) > 1:
        raise BadConversation(
            f"it has {len(conversation.turns)} turns, the template 'opt' has one: choose another template"
        )
    yield Special("bos")
    for _ in range(conversation.pictures):
        yield Picture()
    yield Words("\n")
    for turn in conversation.turns:
        yield from _answer(turn, "", "\n")


def _vicuna_v1(conversation: Conversation, settings: Settings) -> Iterator[Piece]:
    yield Special("bos")
    if settings.system:
        yield Words(settings.system + " ")
    for turn in conversation.turns:
        yield Words("USER: ")
        yield from _question(turn.question)
        yield Words(" ASSISTANT:")
        yield from _answer(turn, " ", "")


def _mpt(conversation: Conversation, settings: Settings) -> Iterator[Piece]:
    if settings.system:
        yield Special("turn_start")
        yield Words("system\n" + settings.system)
        yield Special("eos")
    for turn in conversation.turns:
        yield Special("turn_start")
        yield Words("user\n")
        yield from _question(turn.question)
        yield Special("eos")
        yield Special("turn_start")
        yield Words("assistant\n")
        yield from _answer(turn, "", "")


def _question(question: str) -> Iterator[Piece]:
    first, *rest = question.split(PLACEHOLDER)
    yield Words(first)
    for words in rest:
        yield Picture()
        yield Words(words)


def _answer(turn: Turn, before: str, after: str) -> Iterator[Piece]:
    if turn.answer is not None:
        yield Words(before + turn.answer + after, learnt=True)
        yield Special("eos", learnt=True)


TEMPLATES = {
    "opt": Template(_opt, ("bos",), after="\n", words="\n", asks=False),
    "vicuna_v1": Template(_vicuna_v1, ("bos",), before=" ", words="USER:  ASSISTANT: "),
    "mpt": Template(_mpt, ("turn_start",), words="system\nuser\nassistant\n"),
}


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Pieces with adjacent words joined: a tokenizer merges across them, as it would in the whole text."""
    for key, group in itertools.groupby(
        (piece for piece in pieces if not (isinstance(piece, Words) and not piece.text)),
        lambda piece: (isinstance(piece, Words), isinstance(piece, Words) and piece.learnt),
    ):
        is_words, learnt = key
        if is_words:
            yield Words("".join(piece.text for piece in group if isinstance(piece, Words)), learnt)
        else:
            yield from group


def _cut(
    ids: list[int], weights: list[float], eos: int, max_tokens: int
) -> tuple[list[int], list[float]]:
    """The first `max_tokens` ids without a tail that is not learnt; the last of them is EOS."""
    end = max_tokens
    while end and not weights[end - 1]:
        end -= 1
    if not end:
        raise BadConversation(
            f"its first answer begins after token {max_tokens}, the longest row: shorten the question, show fewer "
            "pictures, or give the model a longer context"
        )
    return [*ids[: end - 1], eos], weights[:end]
