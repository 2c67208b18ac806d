"""Twelve kinds of toys, built from solids; each is about 1 high.

Everything is a pure function of a `np.random.Generator`.
"""

import math
from collections.abc import Callable

import numpy as np

from data_pipelines.synthetic.geometry import Body, Colour, Solid

COLOURS: dict[str, Colour] = {
    "red": (0.90, 0.16, 0.14),
    "orange": (0.96, 0.54, 0.10),
    "yellow": (0.97, 0.84, 0.18),
    "green": (0.18, 0.66, 0.25),
    "turquoise": (0.12, 0.70, 0.70),
    "blue": (0.14, 0.33, 0.88),
    "purple": (0.52, 0.22, 0.72),
    "pink": (0.96, 0.48, 0.66),
    "white": (0.95, 0.95, 0.95),
}
_DARK: Colour = (0.14, 0.14, 0.16)
_WOOD: Colour = (0.52, 0.33, 0.17)
_LEAF: Colour = (0.16, 0.52, 0.22)


def _pick(rng: np.random.Generator, n: int = 1) -> list[Colour]:
    names = list(COLOURS)
    return [COLOURS[names[i]] for i in rng.permutation(len(names))[:n]]


def _ball(rng: np.random.Generator) -> tuple[Solid, ...]:
    a, b = _pick(rng, 2)
    pattern = rng.choice(["solid", "stripes", "rings"])
    return (Solid("sphere", (0, 0, 0.5), (0.5, 0.5, 0.5), a, b, pattern, 4),)


def _box(rng: np.random.Generator) -> tuple[Solid, ...]:
    a, b = _pick(rng, 2)
    pattern = rng.choice(["solid", "checker", "rings"])
    return (Solid("box", (0, 0, 0.42), (0.42, 0.42, 0.42), a, b, pattern, 2),)


def _column(rng: np.random.Generator) -> tuple[Solid, ...]:
    a, b = _pick(rng, 2)
    return (
        Solid("cylinder", (0, 0, 0.6), (0.32, 0.32, 0.6), a, b, rng.choice(["solid", "rings"]), 5),
    )


def _cone(rng: np.random.Generator) -> tuple[Solid, ...]:
    a, b = _pick(rng, 2)
    shape = rng.choice(["cone", "pyramid"])
    return (Solid(shape, (0, 0, 0.6), (0.5, 0.5, 0.6), a, b, rng.choice(["solid", "rings"]), 5),)


def _snowman(rng: np.random.Generator) -> tuple[Solid, ...]:
    (hat,) = _pick(rng)
    snow = COLOURS["white"]
    return (
        Solid("sphere", (0, 0, 0.42), (0.42, 0.42, 0.42), snow),
        Solid("sphere", (0, 0, 0.98), (0.28, 0.28, 0.28), snow),
        Solid("cone", (0.30, 0, 0.98), (0.06, 0.06, 0.14), COLOURS["orange"], axis="x"),
        Solid("cylinder", (0, 0, 1.28), (0.2, 0.2, 0.14), hat),
    )


def _tree(rng: np.random.Generator) -> tuple[Solid, ...]:
    trunk = Solid("cylinder", (0, 0, 0.25), (0.11, 0.11, 0.25), _WOOD)
    if rng.random() < 0.5:
        crown = (Solid("sphere", (0, 0, 0.95), (0.48, 0.48, 0.5), _LEAF),)
    else:
        crown = (
            Solid("cone", (0, 0, 0.75), (0.5, 0.5, 0.35), _LEAF),
            Solid("cone", (0, 0, 1.15), (0.38, 0.38, 0.35), _LEAF),
        )
    return (trunk, *crown)


def _mushroom(rng: np.random.Generator) -> tuple[Solid, ...]:
    a, b = _pick(rng, 2)
    return (
        Solid("cylinder", (0, 0, 0.3), (0.16, 0.16, 0.3), (0.93, 0.88, 0.76)),
        Solid("sphere", (0, 0, 0.68), (0.5, 0.5, 0.28), a, b, rng.choice(["solid", "rings"]), 4),
    )


def _house(rng: np.random.Generator) -> tuple[Solid, ...]:
    wall, roof = _pick(rng, 2)
    return (
        Solid("box", (0, 0, 0.35), (0.48, 0.38, 0.35), wall),
        Solid("box", (0.12, -0.38, 0.22), (0.11, 0.02, 0.22), _WOOD),
        Solid("wedge", (0, 0, 0.92), (0.54, 0.46, 0.24), roof),
    )


def _rocket(rng: np.random.Generator) -> tuple[Solid, ...]:
    body, nose = _pick(rng, 2)
    return (
        Solid("cone", (0, 0, 0.22), (0.42, 0.42, 0.22), nose),
        Solid("cylinder", (0, 0, 0.62), (0.22, 0.22, 0.42), body, nose, "rings", 3),
        Solid("cone", (0, 0, 1.28), (0.22, 0.22, 0.26), nose),
    )


def _car(rng: np.random.Generator) -> tuple[Solid, ...]:
    (paint,) = _pick(rng)
    wheels = tuple(
        Solid("cylinder", (x, y, 0.15), (0.15, 0.15, 0.06), _DARK, axis="y")
        for x in (-0.34, 0.34)
        for y in (-0.3, 0.3)
    )
    return (
        *wheels,
        Solid("box", (0, 0, 0.3), (0.6, 0.3, 0.14), paint),
        Solid("box", (-0.08, 0, 0.55), (0.32, 0.26, 0.14), (0.62, 0.80, 0.92)),
        Solid("box", (-0.08, 0, 0.71), (0.34, 0.28, 0.03), paint),
    )


def _barbell(rng: np.random.Generator) -> tuple[Solid, ...]:
    a, b = _pick(rng, 2)
    return (
        Solid("cylinder", (0, 0, 0.3), (0.09, 0.09, 0.4), _DARK, axis="x"),
        Solid("sphere", (-0.42, 0, 0.3), (0.3, 0.3, 0.3), a),
        Solid("sphere", (0.42, 0, 0.3), (0.3, 0.3, 0.3), b),
    )


def _table(rng: np.random.Generator) -> tuple[Solid, ...]:
    (top,) = _pick(rng)
    legs = tuple(
        Solid("cylinder", (x, y, 0.26), (0.06, 0.06, 0.26), _WOOD)
        for x in (-0.42, 0.42)
        for y in (-0.3, 0.3)
    )
    return (*legs, Solid("box", (0, 0, 0.58), (0.55, 0.42, 0.06), top))


# The order gives the class ids of segmentation pictures; the first is 1.
KINDS: dict[str, Callable[[np.random.Generator], tuple[Solid, ...]]] = {
    "ball": _ball,
    "box": _box,
    "column": _column,
    "cone": _cone,
    "snowman": _snowman,
    "tree": _tree,
    "mushroom": _mushroom,
    "house": _house,
    "rocket": _rocket,
    "car": _car,
    "barbell": _barbell,
    "table": _table,
}
CLASS_IDS = {kind: i + 1 for i, kind in enumerate(KINDS)}


def random_body(rng: np.random.Generator, kind: str | None = None) -> Body:
    """A toy at the origin, of `kind` or of a random one."""
    kind = str(rng.choice(list(KINDS))) if kind is None else kind
    return Body(kind, KINDS[kind](rng), yaw=float(rng.uniform(0, 2 * math.pi)))
