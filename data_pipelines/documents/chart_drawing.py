"""Charts drawn by matplotlib, which is imported when one is drawn.

Shape legend: H, W of the picture.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_pipelines.documents.chart_data import Chart, ChartStyle, shown_number
from data_pipelines.documents.fonts import advance, font_path

_DPI = 100
# matplotlib keeps settings and caches for the whole process.
_DRAWING = threading.Lock()


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
        figure.set_facecolor(style.paper)
        axes.set_facecolor(style.paper)
        if chart.kind == "pie":
            _pie(axes, chart, style, _shrunk(chart, font, size, height, width))
        else:
            _bars_and_lines(axes, chart, style)
        axes.set_title(chart.title)
        face = FontProperties(fname=font_path(font), size=size * 72 / _DPI)
        for text in figure.findobj(DrawnText):
            assert isinstance(text, DrawnText)
            text.set_fontproperties(face)
            text.set_color(style.ink)
            text.set_parse_math(False)  # a dollar sign is a dollar sign
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _shrunk(chart: Chart, font: str, size: int, height: int, width: int) -> float:
    """The radius of a pie over the usual one: matplotlib would let long labels run out of the picture."""
    (values,) = chart.values.values()
    widest = max(advance(font, size, f"{k}: {shown_number(v)}") for k, v in values.items())
    usual = (height - 2 * size) / 2.5  # below the title; matplotlib shows 1.25 radii to each side
    return min(1.0, max(0.2, (width / 2 - widest - size / 2) / (1.1 * usual)))


def _pie(axes: Any, chart: Chart, style: ChartStyle, radius: float) -> None:
    (values,) = chart.values.values()
    labels = [f"{label}: {shown_number(value)}" for label, value in values.items()]
    axes.pie(list(values.values()), labels=labels, colors=style.colours, radius=radius)


def _bars_and_lines(axes: Any, chart: Chart, style: ChartStyle) -> None:
    names, bars = list(chart.values), chart.bars
    places = np.arange(len(chart.labels))
    for number, name in enumerate(names):
        values = list(chart.values[name].values())
        colour = style.colours[number]
        if name in bars:
            wide = 0.8 / len(bars)
            at = places + (bars.index(name) - (len(bars) - 1) / 2) * wide
            axes.bar(at, values, wide, color=colour, label=name or "_")
        else:
            at = places
            axes.plot(at, values, marker="o", color=colour, label=name or "_")
        # Bars under lines have their numbers at the foot, out of the lines' way.
        heights = [0] * len(values) if chart.kind == "composite" and name in bars else values
        _write_numbers(axes, at, heights, values, style.paper)
    _finish_axes(axes, chart, style)
    axes.set_xticks(places, chart.labels)
    if names != [""]:
        legend = axes.figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
        legend.set_in_layout(True)


def _write_numbers(
    axes: Any, at: np.ndarray, heights: Sequence[float], values: Sequence[float], paper: str
) -> None:
    for x, y, value in zip(at, heights, values, strict=True):
        axes.annotate(
            str(shown_number(value)),
            (x, y),
            (0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            # Readable on bars, lines and grid alike.
            bbox={"facecolor": paper, "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )


def _finish_axes(axes: Any, chart: Chart, style: ChartStyle) -> None:
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    axes.margins(x=0.08, y=0.2)  # room for the numbers
    if style.grid:
        axes.grid(True, color="#909090", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.tick_params(colors=style.ink)
    for side, spine in axes.spines.items():
        spine.set_color(style.ink)
        spine.set_visible(style.frame or side in ("left", "bottom"))
