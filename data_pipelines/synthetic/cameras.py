"""Places of cameras and of the sun; angles in radians, azimuth 0 is the front."""

import math

import numpy as np

from data_pipelines.synthetic.geometry import Camera, Vector


def random_camera(rng: np.random.Generator) -> Camera:
    """A camera in front of the stage, slightly above the toys."""
    return stage_camera(
        azimuth=math.radians(rng.uniform(-35, 35)),
        elevation=math.radians(rng.uniform(16, 32)),
        distance=rng.uniform(5.0, 5.8),
    )


def stage_camera(azimuth: float, elevation: float, distance: float) -> Camera:
    """A camera that looks at the middle of the stage; azimuth 0 is the front, angles in radians."""
    return Camera(on_sphere(azimuth, elevation, distance, above=0.45), (0.0, 0.0, 0.45))


def random_sun(rng: np.random.Generator) -> Vector:
    """The direction towards the sun, unit length: in front, 42 to 60 degrees high."""
    x, y, z = on_sphere(math.radians(rng.uniform(-70, 70)), math.radians(rng.uniform(42, 60)), 1.0)
    return x, y, z


def on_sphere(azimuth: float, elevation: float, radius: float, above: float = 0.0) -> Vector:
    """A point on a sphere whose centre is on the z axis at height `above`."""
    flat = radius * math.cos(elevation)
    return (
        flat * math.sin(azimuth),
        -flat * math.cos(azimuth),
        radius * math.sin(elevation) + above,
    )
