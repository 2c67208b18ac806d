"""Random scenes for the renderer: twelve kinds of toys under skies or in rooms; clips and turntables of them.

Everything is a pure function of a `np.random.Generator`. World units: a toy is about 1 high, the stage 4 across.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from data_pipelines.synthetic.renderer import (
    Background,
    Body,
    Camera,
    Colour,
    Part,
    Scene,
    Vector,
    body_height,
    body_reach,
)

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
_STAGE = np.array([1.3, 1.5])  # bodies stand at |x|, |y| up to these, in sight of the camera


def _pick(rng: np.random.Generator, n: int = 1) -> list[Colour]:
    names = list(COLOURS)
    return [COLOURS[names[i]] for i in rng.permutation(len(names))[:n]]


def _ball(rng: np.random.Generator) -> tuple[Part, ...]:
    a, b = _pick(rng, 2)
    pattern = rng.choice(["solid", "stripes", "rings"])
    return (Part("sphere", (0, 0, 0.5), (0.5, 0.5, 0.5), a, b, pattern, 4),)


def _box(rng: np.random.Generator) -> tuple[Part, ...]:
    a, b = _pick(rng, 2)
    pattern = rng.choice(["solid", "checker", "rings"])
    return (Part("box", (0, 0, 0.42), (0.42, 0.42, 0.42), a, b, pattern, 2),)


def _column(rng: np.random.Generator) -> tuple[Part, ...]:
    a, b = _pick(rng, 2)
    return (
        Part("cylinder", (0, 0, 0.6), (0.32, 0.32, 0.6), a, b, rng.choice(["solid", "rings"]), 5),
    )


def _cone(rng: np.random.Generator) -> tuple[Part, ...]:
    a, b = _pick(rng, 2)
    shape = rng.choice(["cone", "pyramid"])
    return (Part(shape, (0, 0, 0.6), (0.5, 0.5, 0.6), a, b, rng.choice(["solid", "rings"]), 5),)


def _snowman(rng: np.random.Generator) -> tuple[Part, ...]:
    (hat,) = _pick(rng)
    snow = COLOURS["white"]
    return (
        Part("sphere", (0, 0, 0.42), (0.42, 0.42, 0.42), snow),
        Part("sphere", (0, 0, 0.98), (0.28, 0.28, 0.28), snow),
        Part("cone", (0.30, 0, 0.98), (0.06, 0.06, 0.14), COLOURS["orange"], axis="x"),
        Part("cylinder", (0, 0, 1.28), (0.2, 0.2, 0.14), hat),
    )


def _tree(rng: np.random.Generator) -> tuple[Part, ...]:
    trunk = Part("cylinder", (0, 0, 0.25), (0.11, 0.11, 0.25), _WOOD)
    if rng.random() < 0.5:
        crown = (Part("sphere", (0, 0, 0.95), (0.48, 0.48, 0.5), _LEAF),)
    else:
        crown = (
            Part("cone", (0, 0, 0.75), (0.5, 0.5, 0.35), _LEAF),
            Part("cone", (0, 0, 1.15), (0.38, 0.38, 0.35), _LEAF),
        )
    return (trunk, *crown)


def _mushroom(rng: np.random.Generator) -> tuple[Part, ...]:
    a, b = _pick(rng, 2)
    return (
        Part("cylinder", (0, 0, 0.3), (0.16, 0.16, 0.3), (0.93, 0.88, 0.76)),
        Part("sphere", (0, 0, 0.68), (0.5, 0.5, 0.28), a, b, rng.choice(["solid", "rings"]), 4),
    )


def _house(rng: np.random.Generator) -> tuple[Part, ...]:
    wall, roof = _pick(rng, 2)
    return (
        Part("box", (0, 0, 0.35), (0.48, 0.38, 0.35), wall),
        Part("box", (0.12, -0.38, 0.22), (0.11, 0.02, 0.22), _WOOD),
        Part("wedge", (0, 0, 0.92), (0.54, 0.46, 0.24), roof),
    )


def _rocket(rng: np.random.Generator) -> tuple[Part, ...]:
    body, nose = _pick(rng, 2)
    return (
        Part("cone", (0, 0, 0.22), (0.42, 0.42, 0.22), nose),
        Part("cylinder", (0, 0, 0.62), (0.22, 0.22, 0.42), body, nose, "rings", 3),
        Part("cone", (0, 0, 1.28), (0.22, 0.22, 0.26), nose),
    )


def _car(rng: np.random.Generator) -> tuple[Part, ...]:
    (paint,) = _pick(rng)
    wheels = tuple(
        Part("cylinder", (x, y, 0.15), (0.15, 0.15, 0.06), _DARK, axis="y")
        for x in (-0.34, 0.34)
        for y in (-0.3, 0.3)
    )
    return (
        *wheels,
        Part("box", (0, 0, 0.3), (0.6, 0.3, 0.14), paint),
        Part("box", (-0.08, 0, 0.55), (0.32, 0.26, 0.14), (0.62, 0.80, 0.92)),
        Part("box", (-0.08, 0, 0.71), (0.34, 0.28, 0.03), paint),
    )


def _barbell(rng: np.random.Generator) -> tuple[Part, ...]:
    a, b = _pick(rng, 2)
    return (
        Part("cylinder", (0, 0, 0.3), (0.09, 0.09, 0.4), _DARK, axis="x"),
        Part("sphere", (-0.42, 0, 0.3), (0.3, 0.3, 0.3), a),
        Part("sphere", (0.42, 0, 0.3), (0.3, 0.3, 0.3), b),
    )


def _table(rng: np.random.Generator) -> tuple[Part, ...]:
    (top,) = _pick(rng)
    legs = tuple(
        Part("cylinder", (x, y, 0.26), (0.06, 0.06, 0.26), _WOOD)
        for x in (-0.42, 0.42)
        for y in (-0.3, 0.3)
    )
    return (*legs, Part("box", (0, 0, 0.58), (0.55, 0.42, 0.06), top))


# Their order gives the class ids of segmentation pictures: the first is 1.
KINDS: dict[str, Callable[[np.random.Generator], tuple[Part, ...]]] = {
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
    """A toy of `kind`, or of any, at the origin."""
    kind = str(rng.choice(list(KINDS))) if kind is None else kind
    return Body(kind, KINDS[kind](rng), yaw=float(rng.uniform(0, 2 * math.pi)))


def random_background(rng: np.random.Generator) -> Background:
    """A meadow, a beach or a square under the sky, or a room."""
    if rng.random() < 0.5:
        ground: Colour = [(0.52, 0.70, 0.38), (0.86, 0.77, 0.56), (0.66, 0.66, 0.68)][
            rng.integers(3)
        ]
        sky = [((0.86, 0.93, 1.0), (0.34, 0.60, 0.93)), ((1.0, 0.87, 0.72), (0.47, 0.55, 0.84))]
        horizon, zenith = sky[rng.integers(2)]
        return Background("outdoor", ground, _tint(ground, 0.9), horizon, zenith, tile=1.0)
    ground = [(0.72, 0.55, 0.38), (0.80, 0.80, 0.78), (0.55, 0.62, 0.70)][rng.integers(3)]
    wall = [(0.93, 0.90, 0.80), (0.80, 0.88, 0.92), (0.90, 0.80, 0.80), (0.80, 0.89, 0.80)][
        rng.integers(4)
    ]
    return Background(
        "room", ground, _tint(ground, 0.82), wall, _tint(wall, 0.86), tile=0.8, half_size=5.0
    )


def random_scene(rng: np.random.Generator, n_bodies: tuple[int, int] = (2, 4)) -> Scene:
    """Toys of different kinds that stand apart; as many as `n_bodies` = (least, most) says."""
    count = int(rng.integers(n_bodies[0], n_bodies[1] + 1))
    bodies: list[Body] = []
    for kind in rng.permutation(list(KINDS))[:count]:
        toy = dataclasses.replace(random_body(rng, str(kind)), size=float(rng.uniform(0.85, 1.2)))
        free = _free_place(rng, toy, bodies)
        if free is not None:
            bodies.append(dataclasses.replace(toy, position=free))
    return Scene(tuple(bodies), random_background(rng), _random_sun(rng))


def random_camera(rng: np.random.Generator) -> Camera:
    """A camera in front of the stage, slightly above the toys."""
    return stage_camera(
        azimuth=math.radians(rng.uniform(-35, 35)),
        elevation=math.radians(rng.uniform(16, 32)),
        distance=rng.uniform(5.0, 5.8),
    )


def stage_camera(azimuth: float, elevation: float, distance: float) -> Camera:
    """Looks at the middle of the stage; azimuth 0 is the front, angles in radians."""
    return Camera(_on_sphere(azimuth, elevation, distance, above=0.45), (0.0, 0.0, 0.45))


def turntable(
    body: Body, rng: np.random.Generator, n_views: int = 24
) -> list[tuple[Scene, Camera]]:
    """`n_views` views at equal steps once around `body`, from one height, on a plain background.

    The distance is uniform in 1.5 .. 2.2 of the object's bounding diameter, as in the renders of Bai et al. (arXiv
    2312.00785, appendix); the elevation, uniform in -45 .. 45 degrees there, starts at -15 here: toys have feet.
    """
    height, reach = body_height(body), body_reach(body)
    scale = 0.5 / math.hypot(height / 2, reach)
    centred = dataclasses.replace(
        body, size=body.size * scale, position=(0.0, 0.0, -height * scale / 2)
    )
    light: Colour = [(0.97, 0.97, 0.97), (0.88, 0.92, 0.97), (0.97, 0.93, 0.86)][rng.integers(3)]
    scene = Scene((centred,), Background("plain", wall=_tint(light, 0.84), wall2=light))
    distance, elevation = rng.uniform(1.5, 2.2), math.radians(rng.uniform(-15, 45))
    start = rng.uniform(0, 2 * math.pi)
    return [
        (
            scene,
            Camera(
                _on_sphere(start + 2 * math.pi * i / n_views, elevation, distance),
                (0.0, 0.0, 0.0),
                field_of_view=37.0,
            ),
        )
        for i in range(n_views)
    ]


def clip(rng: np.random.Generator, n_frames: int = 16) -> list[tuple[Scene, Camera]]:
    """A scene in steady motion: toys slide, hop or turn, or the camera goes around them."""
    scene = random_scene(rng, (2, 3))
    azimuth, elevation = math.radians(rng.uniform(-25, 25)), math.radians(rng.uniform(16, 30))
    distance = rng.uniform(5.0, 5.8)
    motion = str(rng.choice(["slide", "hop", "turn", "orbit"]))
    if motion == "slide":
        scene = _in_lanes(scene, rng)
    sweep = math.radians(rng.uniform(50, 100)) * rng.choice([-1, 1]) if motion == "orbit" else 0.0
    moves = [_random_move(motion, rng) for _ in scene.bodies]
    frames = []
    for i in range(n_frames):
        time = i / max(1, n_frames - 1)
        bodies = tuple(move(body, time) for move, body in zip(moves, scene.bodies, strict=True))
        camera = stage_camera(azimuth + sweep * (time - 0.5), elevation, distance)
        frames.append((dataclasses.replace(scene, bodies=bodies), camera))
    return frames


Move = Callable[[Body, float], Body]  # where a body is at a time in [0, 1]


def _random_move(motion: str, rng: np.random.Generator) -> Move:
    pace, sign, phase = rng.uniform(0.75, 1.0), rng.choice([-1.0, 1.0]), rng.uniform(0, 1)

    def slide(body: Body, time: float) -> Body:
        _, y, z = body.position
        return dataclasses.replace(body, position=(sign * pace * 1.5 * (2 * time - 1), y, z))

    def hop(body: Body, time: float) -> Body:
        x, y, _ = body.position
        height = 0.9 * pace * abs(math.sin(math.pi * (2 * time + phase)))
        return dataclasses.replace(body, position=(x, y, height))

    def turn(body: Body, time: float) -> Body:
        return dataclasses.replace(body, yaw=body.yaw + sign * pace * 1.5 * math.pi * time)

    def stay(body: Body, time: float) -> Body:
        del time
        return body

    return {"slide": slide, "hop": hop, "turn": turn, "orbit": stay}[motion]


def _in_lanes(scene: Scene, rng: np.random.Generator) -> Scene:
    """Bodies on parallel lanes across the view, so that none runs into another; toys face where they go."""
    lanes = np.linspace(-1.2, 1.4, len(scene.bodies))[rng.permutation(len(scene.bodies))]
    bodies = tuple(
        dataclasses.replace(body, position=(0.0, float(y), 0.0), yaw=0.0)
        for body, y in zip(scene.bodies, lanes, strict=True)
    )
    return dataclasses.replace(scene, bodies=bodies)


def _free_place(rng: np.random.Generator, body: Body, others: list[Body]) -> Vector | None:
    """A place on the stage where `body` touches none of the others; None after 60 draws."""
    for _ in range(60):
        x, y = rng.uniform(-1, 1, 2) * _STAGE
        clear = all(
            math.hypot(x - other.position[0], y - other.position[1])
            > body_reach(body) + body_reach(other)
            for other in others
        )
        if clear:
            return float(x), float(y), 0.0
    return None


def _random_sun(rng: np.random.Generator) -> Vector:
    x, y, z = _on_sphere(math.radians(rng.uniform(-70, 70)), math.radians(rng.uniform(42, 60)), 1.0)
    return x, y, z


def _on_sphere(azimuth: float, elevation: float, radius: float, above: float = 0.0) -> Vector:
    flat = radius * math.cos(elevation)
    return (
        flat * math.sin(azimuth),
        -flat * math.cos(azimuth),
        radius * math.sin(elevation) + above,
    )


def _tint(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return r * factor, g * factor, b * factor
