"""A chart as data, its truth as a Python dict, and how it may look; `chart_drawing` and `echarts` draw it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError

KINDS = ("bar", "line", "pie", "composite")
# Each colour is told from white paper and from dark.
_PALETTES = (
    ("#4878a8", "#e49444", "#6a9f58", "#d1615d", "#85b6b2"),
    ("#7a7a7a", "#b5b5b5", "#5c6670", "#98a4b0", "#8a7f72"),
    ("#7f3c8d", "#11a579", "#3969ac", "#f2b701", "#e73f74"),
    ("#2a9d8f", "#d4a72c", "#e76f51", "#5b8fb9", "#b07aa1"),
)


@dataclasses.dataclass(frozen=True)
class Chart:
    """What a chart says.

    Attributes:
      kind: one of `KINDS`; "composite" has bars for the first series and lines for the others.
      title: above it.
      x_title, y_title: at the axes; "" and for a pie none.
      values: series -> label -> number. One series is named "".
    """

    kind: str
    title: str
    x_title: str
    y_title: str
    values: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(
                f"a chart is of kind {self.kind!r}: it must be one of {', '.join(KINDS)}"
            )
        if not self.values or not all(self.values.values()):
            raise UserError(f"the chart {self.title!r} has no values")
        most = 1 if self.kind == "pie" else len(_PALETTES[0])
        if len(self.values) > most:
            raise UserError(
                f"the chart {self.title!r} has {len(self.values)} series: a {self.kind} has at most {most}"
            )
        labels = {tuple(series) for series in self.values.values()}
        if len(labels) > 1:
            raise UserError(f"the series of the chart {self.title!r} have different labels")
        for series in self.values.values():
            for label, value in series.items():
                if not math.isfinite(value):
                    raise UserError(
                        f"the value of {label!r} in the chart {self.title!r} is {value}: give a finite number"
                    )
                if self.kind == "pie" and value <= 0:
                    raise UserError(
                        f"the value of {label!r} in the pie {self.title!r} is {value}: it must be above 0"
                    )

    @property
    def bars(self) -> list[str]:
        """The series that are bars; the others are lines. A pie has none."""
        names = list(self.values)
        return names if self.kind == "bar" else names[:1] if self.kind == "composite" else []

    @property
    def labels(self) -> list[str]:
        """Of bars, points or sectors."""
        return list(next(iter(self.values.values())))

    @property
    def texts(self) -> list[str]:
        """All words on it."""
        found = [self.title, self.x_title, self.y_title, *self.values, *self.labels]
        return [text for text in found if text]

    def truth(self) -> str:
        """A Python dict: title, axes if they have titles, `values` by label, with several series a dict each."""
        told: dict[str, Any] = {"title": self.title}
        told |= {
            name: text
            for name, text in (("x_title", self.x_title), ("y_title", self.y_title))
            if text
        }
        series = {
            name: {label: shown_number(value) for label, value in values.items()}
            for name, values in self.values.items()
        }
        told["values"] = series[""] if list(series) == [""] else series
        return repr(told)


@dataclasses.dataclass(frozen=True)
class ChartStyle:
    """How a chart looks. Its numbers are always written: what the truth says must be in the picture.

    Attributes:
      palette: number of a list of colours.
      grid: lines behind the values.
      frame: all four sides; else the two axes.
      dark: light on dark.
    """

    palette: int
    grid: bool
    frame: bool
    dark: bool

    @property
    def colours(self) -> tuple[str, ...]:
        """Of the series, or of a pie's sectors."""
        return _PALETTES[self.palette]

    @property
    def ink(self) -> str:
        """The colour of words and axes."""
        return "#f0f0f0" if self.dark else "#101010"

    @property
    def paper(self) -> str:
        """The colour behind all."""
        return "#202428" if self.dark else "#ffffff"


# By name, such as `2gf`: palette 2 with grid and frame; `d` is dark.
STYLES = {
    f"{palette}{'g' if grid else ''}{'f' if frame else ''}{'d' if dark else ''}": ChartStyle(
        palette, grid, frame, dark
    )
    for palette in range(len(_PALETTES))
    for grid in (False, True)
    for frame in (False, True)
    for dark in (False, True)
}


def shown_number(value: float) -> int | float:
    """As it is written: no `.0`, and at most two digits behind the point."""
    rounded = round(float(value), 2)
    return int(rounded) if rounded.is_integer() else rounded
