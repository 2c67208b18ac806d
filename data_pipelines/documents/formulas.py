"""Random formulas, each as LaTeX and as typst's mathematics: both are built by the same calls, so they say the same.

`frac(a, b)` and its like take finished formulas and give a larger one. LaTeX is written in one way only: a blank
between two factors, braces around every index, `\\left(` where what it encloses is tall.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Formula:
    """A formula.

    Attributes:
      latex: without dollar signs.
      typst: the same for typst, in mathematics.
      tall: whether it is higher than a letter, so that brackets around it grow.
    """

    latex: str
    typst: str
    tall: bool = False


# LaTeX's name -> typst's; a test compares the characters that they stand for.
SYMBOLS = {
    **{name: name for name in ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "nu")},
    **{name: name for name in ("pi", "rho", "sigma", "tau", "psi", "omega", "eta", "xi", "chi")},
    **{name: name for name in ("Gamma", "Delta", "Lambda", "Sigma", "Phi", "Psi", "Omega")},
    **{name: name for name in ("partial", "nabla", "sum", "equiv", "approx", "in", "subset")},
    "phi": "phi.alt",
    "varphi": "phi",
    "varepsilon": "epsilon",
    "infty": "infinity",
    "leq": "lt.eq",
    "geq": "gt.eq",
    "neq": "eq.not",
    "sim": "tilde.op",
    "to": "arrow.r",
    "times": "times",
    "cdot": "dot.op",
    "pm": "plus.minus",
    "prod": "product",
    "int": "integral",
    "cdots": "dots.h.c",
    "cup": "union",
    "cap": "inter",
}
_LETTERS = "abcdfghkmnpqrstuvxyzABCDFGHKLMNPQRSTUVXYZ"
# Accents are as wide as their letter in typst, and in LaTeX never wider than an x.
_NARROW = "abcdghknpqrsuvxyz"
_GREEK = ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "pi", "rho", "sigma", "tau")
_GREEK += ("phi", "varphi", "psi", "omega", "varepsilon", "Gamma", "Delta", "Sigma", "Omega")
_FUNCTIONS = ("sin", "cos", "tan", "log", "ln", "exp")
_RELATIONS = ("leq", "geq", "neq", "approx", "equiv", "sim")
_SETS = (Formula(r"\mathbb{R}", "RR"), Formula(r"\mathbb{N}", "NN"), Formula(r"\mathbb{Z}", "ZZ"))
_ACCENTS = {"hat": "hat", "bar": "macron", "vec": "arrow", "dot": "dot", "tilde": "tilde"}


def plain(text: str) -> Formula:
    """A letter, a number, or a sign that both write alike."""
    return Formula(text, text)


def symbol(name: str) -> Formula:
    """One of `SYMBOLS`, by its name in LaTeX."""
    return Formula(f"\\{name}", SYMBOLS[name])


def row(*parts: Formula) -> Formula:
    """One after the other."""
    return Formula(
        " ".join(part.latex for part in parts),
        " ".join(part.typst for part in parts),
        any(part.tall for part in parts),
    )


def frac(over: Formula, under: Formula) -> Formula:
    """A fraction."""
    return Formula(
        rf"\frac{{{over.latex}}}{{{under.latex}}}", f"frac({over.typst}, {under.typst})", True
    )


def root(inside: Formula, degree: int = 2) -> Formula:
    """A root."""
    if degree == 2:
        return Formula(rf"\sqrt{{{inside.latex}}}", f"sqrt({inside.typst})", inside.tall)
    return Formula(rf"\sqrt[{degree}]{{{inside.latex}}}", f"root({degree}, {inside.typst})", True)


def indexed(base: Formula, below: Formula | None = None, above: Formula | None = None) -> Formula:
    """A base with what stands at its foot, or below it, and at its head, or above."""
    latex, typst = base.latex, base.typst
    for mark, part in (("_", below), ("^", above)):
        if part:
            latex, typst = f"{latex}{mark}{{{part.latex}}}", f"{typst}{mark}({part.typst})"
    return Formula(latex, typst, base.tall)


def bracketed(inside: Formula) -> Formula:
    """In round brackets."""
    left, right = (r"\left(", r"\right)") if inside.tall else ("(", ")")
    return Formula(f"{left} {inside.latex} {right}", f"({inside.typst})", inside.tall)


def accented(accent: str, letter: Formula) -> Formula:
    """A letter under one of `_ACCENTS`."""
    return Formula(rf"\{accent}{{{letter.latex}}}", f"{_ACCENTS[accent]}({letter.typst})")


def matrix(rows: Sequence[Sequence[Formula]]) -> Formula:
    """In round brackets."""
    latex = r" \\ ".join(" & ".join(cell.latex for cell in row) for row in rows)
    typst = "; ".join(", ".join(cell.typst for cell in row) for row in rows)
    return Formula(rf"\begin{{pmatrix}} {latex} \end{{pmatrix}}", f"mat({typst})", True)


def cases(branches: Sequence[tuple[Formula, Formula]]) -> Formula:
    """Values with their conditions."""
    latex = r" \\ ".join(f"{value.latex} & {when.latex}" for value, when in branches)
    typst = ", ".join(f"{value.typst} & quad {when.typst}" for value, when in branches)
    return Formula(rf"\begin{{cases}} {latex} \end{{cases}}", f"cases({typst})", True)


def inline_formula(rng: np.random.Generator) -> Formula:
    """A short one, no higher than a line of text."""
    kind = int(rng.integers(4))
    left = _atom(rng)
    if kind == 0:
        return left
    if kind == 1:
        return row(left, symbol(_one(_RELATIONS, rng)), _number(rng))
    if kind == 2:
        return row(left, symbol("in"), _one(_SETS, rng))
    return row(left, plain("="), _sum(lambda: _factor(rng), 2, rng))


def display_formula(rng: np.random.Generator) -> Formula:
    """One for a line of its own: an equation, a function of several cases, a matrix, a limit."""
    kind = int(rng.integers(10))
    if kind == 0:
        return row(_applied(rng), plain("="), cases([_branch(rng) for _ in range(_few(rng))]))
    if kind == 1:
        size = _few(rng)
        cells = [[_atom(rng) for _ in range(size)] for _ in range(_few(rng))]
        return row(plain(_letter(rng).upper()), plain("="), matrix(cells))
    if kind == 2:
        limit = row(plain(_letter(rng)), symbol("to"), _one((symbol("infty"), plain("0")), rng))
        lim = indexed(Formula(r"\lim", "lim"), limit)
        return row(lim, _term(rng, 1), plain("="), _term(rng, 0))
    left = _term(rng, 0) if rng.random() < 0.4 else _applied(rng)
    sign = plain("=") if rng.random() < 0.8 else symbol(_one(_RELATIONS, rng))
    return row(left, sign, _sum(lambda: _term(rng, 2), int(rng.integers(1, 4)), rng))


def _branch(rng: np.random.Generator) -> tuple[Formula, Formula]:
    sign = _one((plain("<"), plain(">"), symbol("leq"), symbol("geq")), rng)
    return _term(rng, 0), row(plain(_letter(rng)), sign, _number(rng))


def _term(rng: np.random.Generator, depth: int) -> Formula:
    """A product, fraction, root, sum or integral; `depth` bounds what it holds."""
    kind = int(rng.integers(9)) if depth else int(rng.integers(3))
    if kind <= 1:
        # A number comes first: two of them side by side would read as one.
        return row(_factor(rng), *(_atom(rng) for _ in range(int(rng.integers(0, 2)))))
    if kind == 2:
        name = _one(_FUNCTIONS, rng)
        return row(Formula(f"\\{name}", name), _atom(rng))
    if kind <= 4:
        return frac(_inside(rng, depth), _inside(rng, depth))
    if kind == 5:
        return root(_inside(rng, depth), _one((2, 2, 3), rng))
    if kind == 6:
        return row(_factor(rng), bracketed(_inside(rng, depth)))
    if kind == 7:
        letter = plain(_one("ijkmn", rng))
        upper = _one((plain("n"), plain("N"), symbol("infty")), rng)
        sign = _tall_symbol(_one(("sum", "prod"), rng))
        limits = indexed(sign, row(letter, plain("="), plain("1")), upper)
        return row(limits, _factor(rng), indexed(plain(_letter(rng)), letter))
    sign = indexed(_tall_symbol("int"), _number(rng), _one((symbol("infty"), plain("1")), rng))
    return row(sign, _term(rng, depth - 1), plain("d"), plain(_one("stxyz", rng)))


def _tall_symbol(name: str) -> Formula:
    return dataclasses.replace(symbol(name), tall=True)


def _inside(rng: np.random.Generator, depth: int) -> Formula:
    return _sum(lambda: _term(rng, depth - 1), int(rng.integers(1, 3)), rng)


def _sum(part: Callable[[], Formula], count: int, rng: np.random.Generator) -> Formula:
    parts = [part()]
    for _ in range(count - 1):
        parts += [_one((plain("+"), plain("-"), symbol("pm")), rng), part()]
    return row(*parts)


def _applied(rng: np.random.Generator) -> Formula:
    """A letter, perhaps as a function of another."""
    name = _atom(rng)
    return row(name, bracketed(plain(_letter(rng)))) if rng.random() < 0.5 else name


def _factor(rng: np.random.Generator) -> Formula:
    return _number(rng) if rng.random() < 0.2 else _atom(rng)


def _atom(rng: np.random.Generator) -> Formula:
    """A letter, perhaps with an index, a power or an accent."""
    greek = rng.random() < 0.35
    letter = symbol(_one(_GREEK, rng)) if greek else plain(_letter(rng))
    kind = int(rng.integers(8))
    if kind == 0:
        return indexed(letter, _index(rng))
    if kind == 1:
        return indexed(letter, None, _index(rng))
    if kind == 2:
        return indexed(letter, _index(rng), plain(str(rng.integers(2, 5))))
    if kind == 3:
        return accented(_one(tuple(_ACCENTS), rng), plain(_one(_NARROW, rng)))
    return letter


def _index(rng: np.random.Generator) -> Formula:
    return plain(_one("0123ijkmn", rng))


def _number(rng: np.random.Generator) -> Formula:
    return plain(str(rng.integers(0, 10) if rng.random() < 0.7 else rng.integers(10, 1000)))


def _letter(rng: np.random.Generator) -> str:
    return _one(_LETTERS, rng)


def _few(rng: np.random.Generator) -> int:
    return int(rng.integers(2, 4))


def _one(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]
