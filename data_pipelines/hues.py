"""Hues with names: what drawn things are painted in, and what "the red ones" means."""

import colorsys

# Degrees of the colour circle; the closest two are 30 apart.
HUES: dict[str, int] = {
    "red": 0,
    "orange": 30,
    "yellow": 60,
    "green": 120,
    "cyan": 180,
    "blue": 225,
    "purple": 270,
    "pink": 320,
}
_LEAST_SATURATION = 0.2  # below, a colour is a grey
_CERTAIN = 12.0  # degrees: a hue further from every name has none


def rgb_of(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """RGB in [0, 1] of a hue in degrees, a saturation and a value in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)


def hue_name(rgb: tuple[float, float, float]) -> str | None:
    """The name of a colour's hue; None for a grey, and for a hue between two names.

    Args:
      rgb: in any unit, the same for all three.
    """
    hue, saturation, _ = colorsys.rgb_to_hsv(*rgb)
    if saturation < _LEAST_SATURATION:
        return None
    name = min(HUES, key=lambda name: _apart(360 * hue, HUES[name]))
    return name if _apart(360 * hue, HUES[name]) <= _CERTAIN else None


def _apart(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)
