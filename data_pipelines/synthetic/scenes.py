"""Random scenes for the renderer: toys outdoors or in rooms, and clips and turntables of them.

Everything is a pure function of a `np.random.Generator`. In world units a toy is about 1 high, the stage 4 across.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from data_pipelines.synthetic.backgrounds import random_background, tint
from data_pipelines.synthetic.cameras import on_sphere, random_sun, stage_camera
from data_pipelines.synthetic.geometry import (
    Background,
    Body,
    Camera,
    Colour,
    Scene,
    Vector,
    body_height,
    body_reach,
)
from data_pipelines.synthetic.toys import KINDS, random_body

_STAGE = np.array([1.3, 1.5])  # largest |x| and |y| of a body, so that the camera sees it


def random_scene(rng: np.random.Generator, n_bodies: tuple[int, int] = (2, 4)) -> Scene:
    """Toys of different kinds that stand apart; `n_bodies` = (least, most). A toy that finds no place is left out."""
    count = int(rng.integers(n_bodies[0], n_bodies[1] + 1))
    bodies: list[Body] = []
    for kind in rng.permutation(list(KINDS))[:count]:
        toy = dataclasses.replace(random_body(rng, str(kind)), size=float(rng.uniform(0.85, 1.2)))
        free = _free_place(rng, toy, bodies)
        if free is not None:
            bodies.append(dataclasses.replace(toy, position=free))
    return Scene(tuple(bodies), random_background(rng), random_sun(rng))


def turntable(
    body: Body, rng: np.random.Generator, n_views: int = 24
) -> list[tuple[Scene, Camera]]:
    """`n_views` views at equal steps once around `body`, at one elevation, on a plain background.

    The distance is uniform in 1.5 .. 2.2 of the object's bounding diameter, as in the renders of Bai et al. (arXiv
    2312.00785, appendix). Their elevation is uniform in -45 .. 45 degrees; here it starts at -15, as toys have feet.
    """
    height, reach = body_height(body), body_reach(body)
    # Bounding diameter 1, so that distances are in units of it.
    scale = 0.5 / math.hypot(height / 2, reach)
    centred = dataclasses.replace(
        body, size=body.size * scale, position=(0.0, 0.0, -height * scale / 2)
    )
    light: Colour = [(0.97, 0.97, 0.97), (0.88, 0.92, 0.97), (0.97, 0.93, 0.86)][rng.integers(3)]
    scene = Scene((centred,), Background("plain", wall=tint(light, 0.84), wall2=light))
    distance, elevation = rng.uniform(1.5, 2.2), math.radians(rng.uniform(-15, 45))
    start = rng.uniform(0, 2 * math.pi)
    return [
        (
            scene,
            Camera(
                on_sphere(start + 2 * math.pi * i / n_views, elevation, distance),
                (0.0, 0.0, 0.0),
                field_of_view=37.0,
            ),
        )
        for i in range(n_views)
    ]


def clip(rng: np.random.Generator, n_frames: int = 16) -> list[tuple[Scene, Camera]]:
    """A scene in steady motion: the toys slide, hop or turn, or the camera circles them."""
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


Move = Callable[[Body, float], Body]  # (body, time in [0, 1]) -> the body then


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
    """Puts the bodies on parallel lanes across the view, so that none hits another; toys face where they go."""
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
