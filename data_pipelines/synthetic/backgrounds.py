"""Backgrounds for the toys: a floor under the sky, or a room."""

import numpy as np

from data_pipelines.synthetic.geometry import Background, Colour


def random_background(rng: np.random.Generator) -> Background:
    """A meadow, a beach or a square under the sky, or a room."""
    if rng.random() < 0.5:
        ground: Colour = [(0.52, 0.70, 0.38), (0.86, 0.77, 0.56), (0.66, 0.66, 0.68)][
            rng.integers(3)
        ]
        sky = [((0.86, 0.93, 1.0), (0.34, 0.60, 0.93)), ((1.0, 0.87, 0.72), (0.47, 0.55, 0.84))]
        horizon, zenith = sky[rng.integers(2)]
        return Background("outdoor", ground, tint(ground, 0.9), horizon, zenith, tile=1.0)
    ground = [(0.72, 0.55, 0.38), (0.80, 0.80, 0.78), (0.55, 0.62, 0.70)][rng.integers(3)]
    wall = [(0.93, 0.90, 0.80), (0.80, 0.88, 0.92), (0.90, 0.80, 0.80), (0.80, 0.89, 0.80)][
        rng.integers(4)
    ]
    return Background(
        "room", ground, tint(ground, 0.82), wall, tint(wall, 0.86), tile=0.8, half_size=5.0
    )


def tint(colour: Colour, factor: float) -> Colour:
    """The colour, darker by a factor below 1."""
    r, g, b = colour
    return r * factor, g * factor, b * factor
