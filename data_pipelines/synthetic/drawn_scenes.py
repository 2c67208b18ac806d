"""Random drawings: scenes of two to five things, and clips and turns of them.

Everything is a pure function of a `np.random.Generator`. Things are at least 12 pixels wide at 64 pixels, and cover
little of one another, so that a patch of 8 pixels still says which kind it shows.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from data_pipelines.hues import HUES, rgb_of
from data_pipelines.synthetic.drawn import FARTHEST, MIN_GAP, NEAREST, Drawing, Thing
from data_pipelines.synthetic.outlines import OUTLINES

MOST = 5
_TRIES = 24  # places drawn for a thing; it takes the first that is free
_APART = 0.8  # of the sum of two radii: closer, and one covers too much of the other
_RADII = (0.125, 0.21)  # of a thing at a middle depth
_KINDS, _HUES = tuple(OUTLINES), tuple(HUES)


def random_drawing(
    rng: np.random.Generator,
    ground: UInt8[np.ndarray, "H W 3"],
    kind: str,
    hue: str,
    room: float = math.inf,
) -> Drawing:
    """A scene with a thing of `kind` and another one of `hue`; at least two kinds.

    Args:
      rng: of every draw.
      ground: see `Drawing`.
      kind: of one thing, in any colour.
      hue: the name of another thing's.
      room: no circle around a thing (see `Thing.radius`) reaches farther than this from the picture's centre, in the
        picture's sides.
    """
    count = int(rng.integers(2, MOST + 1))
    kinds = [kind, *_others(rng, kind, count - 1)]
    hues = [_HUES[i] for i in rng.integers(len(_HUES), size=count)]
    hues[1] = hue
    depths = _depths(rng, count)
    things: list[Thing] = []
    for one_kind, one_hue, depth in zip(kinds, hues, depths, strict=True):
        radius = rng.uniform(*_RADII) * math.sqrt((NEAREST + FARTHEST) / 2 / depth)
        place = _place(rng, radius, things, room)
        if place is not None:
            things.append(_random_thing(rng, one_kind, one_hue, place, radius, depth))
    x, y = rng.uniform(-0.75, 0.75), rng.uniform(0.0, 0.7)
    length = math.hypot(x, y, 1)
    light = (x / length, y / length, 1 / length)
    return Drawing(tuple(things), ground, light, haze=float(rng.uniform(0.45, 0.85)))


def clip(drawing: Drawing, rng: np.random.Generator, n_frames: int) -> list[Drawing]:
    """The things of a drawing on straight ways, at constant speed, back from the picture's edges."""
    moves = []
    for thing in drawing.things:
        angle, speed = rng.uniform(0, 2 * math.pi), rng.uniform(0.02, 0.07)
        spin = rng.uniform(-0.25, 0.25) if rng.random() < 0.5 else 0.0
        moves.append((thing, speed * math.cos(angle), speed * math.sin(angle), spin))
    return [
        dataclasses.replace(
            drawing,
            things=tuple(
                dataclasses.replace(
                    thing,
                    x=_bounced(thing.x + dx * i, thing.radius),
                    y=_bounced(thing.y + dy * i, thing.radius),
                    turn=thing.turn + spin * i,
                )
                for thing, dx, dy, spin in moves
            ),
        )
        for i in range(n_frames)
    ]


def turns(drawing: Drawing, n_views: int) -> list[Drawing]:
    """The things of a drawing once around the picture's centre, in equal steps; the ground stands still."""
    return [
        dataclasses.replace(
            drawing,
            things=tuple(_turned(thing, 2 * math.pi * i / n_views) for thing in drawing.things),
        )
        for i in range(n_views)
    ]


def _others(rng: np.random.Generator, kind: str, count: int) -> list[str]:
    """Kinds for the other things; the first is a different one."""
    drawn = [_KINDS[i] for i in rng.integers(len(_KINDS), size=count)]
    step = 1 + int(rng.integers(len(_KINDS) - 1))
    drawn[0] = _KINDS[(_KINDS.index(kind) + step) % len(_KINDS)]
    return drawn


def _depths(rng: np.random.Generator, count: int) -> list[float]:
    """Depths at least `MIN_GAP` apart, in a random order."""
    step = (FARTHEST - NEAREST) / (count - 1)
    jitter = (step - MIN_GAP) / 2
    slots = NEAREST + step * np.arange(count) + rng.uniform(-jitter, jitter, count)
    return [float(slots[i].clip(NEAREST, FARTHEST)) for i in rng.permutation(count)]


def _place(
    rng: np.random.Generator, radius: float, others: Sequence[Thing], room: float
) -> tuple[float, float] | None:
    """A place for a thing's centre: the first free one of some, and of the second thing the best, so that there are
    always two.
    """
    draws = rng.uniform(radius, 1 - radius, (_TRIES, 2))
    best, clearest = None, -math.inf
    for x, y in draws.tolist():
        if math.hypot(x - 0.5, y - 0.5) + radius > room:
            continue
        clear = min(
            (math.hypot(x - o.x, y - o.y) / (radius + o.radius) for o in others), default=math.inf
        )
        if clear >= _APART:
            return x, y
        if clear > clearest:
            best, clearest = (x, y), clear
    return best if len(others) < 2 else None


def _random_thing(
    rng: np.random.Generator,
    kind: str,
    hue: str,
    place: tuple[float, float],
    radius: float,
    depth: float,
) -> Thing:
    near_hue, saturation, value, turn, tilt_x, tilt_y, rim, striped, stripes = rng.random(
        9
    ).tolist()
    return Thing(
        kind=kind,
        colour=rgb_of(HUES[hue] + 8 * near_hue - 4, 0.8 + 0.2 * saturation, 0.75 + 0.25 * value),
        x=place[0],
        y=place[1],
        radius=radius,
        turn=2 * math.pi * turn,
        depth=depth,
        tilt=(0.5 * tilt_x - 0.25, 0.5 * tilt_y - 0.25),
        rim=0.4 + 0.8 * rim,
        stripes=0.2 + 0.25 * stripes if striped < 0.3 else 0.0,
    )


def _bounced(at: float, radius: float) -> float:
    """Where something on a straight way is that comes back from the edges at `radius` and 1 - `radius`."""
    span = 1 - 2 * radius
    along = (at - radius) % (2 * span)
    return radius + (along if along <= span else 2 * span - along)


def _turned(thing: Thing, angle: float) -> Thing:
    x, y = thing.x - 0.5, thing.y - 0.5
    cosine, sine = math.cos(angle), math.sin(angle)
    a, b = thing.tilt
    return dataclasses.replace(
        thing,
        x=0.5 + cosine * x - sine * y,
        y=0.5 + sine * x + cosine * y,
        turn=thing.turn + angle,
        tilt=(cosine * a - sine * b, sine * a + cosine * b),
    )
