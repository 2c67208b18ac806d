"""A chart as data, its truth as a Python dict, and its picture by matplotlib, which is imported when one is drawn.

Shape legend: H, W of the picture.
"""

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_pipelines.documents.fonts import font_path
from lvm_jax.errors import UserError

KINDS = ("bar", "line", "pie", "composite")
_DPI = 100
# matplotlib keeps settings and caches for the whole process.
_DRAWING = threading.Lock()
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
    def texts(self) -> list[str]:
        """All words on it."""
        first = next(iter(self.values.values()))
        found = [self.title, self.x_title, self.y_title, *self.values, *first]
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
            name: {label: _number(value) for label, value in values.items()}
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


def draw_chart(
    chart: Chart, style: ChartStyle, font: str, size: int, height: int, width: int
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of a chart.

    Args:
      chart: what it says.
      style: how it looks.
      font: see `fonts.font_path`.
      size: of the type, in pixels.
      height, width: in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text as DrawnText

    with _DRAWING:
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        ink, paper = ("#f0f0f0", "#202428") if style.dark else ("#101010", "#ffffff")
        figure.set_facecolor(paper)
        axes.set_facecolor(paper)
        if chart.kind == "pie":
            _pie(axes, chart, style)
        else:
            _bars_and_lines(axes, chart, style, ink, paper)
        axes.set_title(chart.title)
        face = FontProperties(fname=font_path(font), size=size * 72 / _DPI)
        for text in figure.findobj(DrawnText):
            assert isinstance(text, DrawnText)
            text.set_fontproperties(face)
            text.set_color(ink)
            text.set_parse_math(False)  # a dollar sign is a dollar sign
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _pie(axes: Any, chart: Chart, style: ChartStyle) -> None:
    (values,) = chart.values.values()
    labels = [f"{label}: {_number(value)}" for label, value in values.items()]
    axes.pie(list(values.values()), labels=labels, colors=_PALETTES[style.palette])


def _bars_and_lines(axes: Any, chart: Chart, style: ChartStyle, ink: str, paper: str) -> None:
    names = list(chart.values)
    bars = names if chart.kind == "bar" else names[:1] if chart.kind == "composite" else []
    labels = list(chart.values[names[0]])
    places = np.arange(len(labels))
    for number, name in enumerate(names):
        values = list(chart.values[name].values())
        colour = _PALETTES[style.palette][number]
        if name in bars:
            wide = 0.8 / len(bars)
            at = places + (bars.index(name) - (len(bars) - 1) / 2) * wide
            axes.bar(at, values, wide, color=colour, label=name or "_")
        else:
            at = places
            axes.plot(at, values, marker="o", color=colour, label=name or "_")
        # Bars under lines have their numbers at the foot, out of the lines' way.
        heights = [0] * len(values) if chart.kind == "composite" and name in bars else values
        _write_numbers(axes, at, heights, values, paper)
    _finish_axes(axes, chart, style, ink)
    axes.set_xticks(places, labels)
    if names != [""]:
        legend = axes.figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
        legend.set_in_layout(True)


def _write_numbers(
    axes: Any, at: np.ndarray, heights: Sequence[float], values: Sequence[float], paper: str
) -> None:
    for x, y, value in zip(at, heights, values, strict=True):
        axes.annotate(
            str(_number(value)),
            (x, y),
            (0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            # Readable on bars, lines and grid alike.
            bbox={"facecolor": paper, "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )


def _finish_axes(axes: Any, chart: Chart, style: ChartStyle, ink: str) -> None:
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    axes.margins(x=0.08, y=0.2)  # room for the numbers
    if style.grid:
        axes.grid(True, color="#909090", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink)
    for side, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_visible(style.frame or side in ("left", "bottom"))


def _number(value: float) -> int | float:
    """As it is written: no `.0`, and at most two digits behind the point."""
    rounded = round(float(value), 2)
    return int(rounded) if rounded.is_integer() else rounded
