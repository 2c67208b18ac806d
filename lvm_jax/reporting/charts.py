"""Line charts, as SVG for the page (in its colours, light or dark) and as PNG for everything else."""

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lvm_jax.errors import UserError

PALETTE = ("#3b7dd8", "#e67e22", "#279260", "#a55bc9", "#c0392b", "#7f8c8d")
_INK = "#707274"  # read on white and on black; in the SVG it becomes the page's own text colour
_MAX_POINTS = 400
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lvm_jax",  # the same chart gives the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclasses.dataclass(frozen=True)
class Series:
    """A line: y over x."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    marker: bool = False


@dataclasses.dataclass(frozen=True)
class Level:
    """A dashed horizontal line to compare with."""

    label: str
    y: float


@dataclasses.dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
      x_label, y_label: with units.
      series: lines; NaN and infinite points are left out, and long lines are averaged into 400 points.
      levels: horizontal lines.
      size: width and height in inches at 100 pixels an inch.
    """

    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    size: tuple[float, float] = (7.6, 3.6)

    def svg(self) -> str:
        """An `<svg>` element whose text and axes take the colour of the text around it."""
        text = self._render(format="svg", transparent=True, metadata={"Date": None}).decode()
        text = text[text.index("<svg") :].replace(_INK, "currentColor")
        return re.sub(
            r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1
        )  # the page sets the width

    def png(self) -> bytes:
        """A PNG on white."""
        return self._render(format="png", dpi=150, facecolor="white")

    def _render(self, **options: Any) -> bytes:
        try:
            import matplotlib as mpl
            from matplotlib.figure import Figure
        except ImportError as error:
            raise UserError("charts need matplotlib: pip install matplotlib") from error
        with mpl.rc_context(_STYLE), io.BytesIO() as buffer:
            figure = Figure(figsize=self.size, dpi=100, layout="constrained")
            self._draw(figure.subplots())
            figure.savefig(buffer, **options)
            return buffer.getvalue()

    def _draw(self, axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for line, colour in zip(self.series, PALETTE * len(self.series)):
            x, y = thinned(line.x, line.y)
            marker = "o" if line.marker else None
            axes.plot(
                x, y, label=line.label, color=colour, linewidth=1.6, marker=marker, markersize=4
            )
        for level, colour in zip(self.levels, PALETTE[::-1] * len(self.levels)):
            label = f"{level.label}: {level.y:#.3g}"
            axes.axhline(level.y, label=label, color=colour, linestyle="--", linewidth=1.2)
        axes.set(xlabel=self.x_label, ylabel=self.y_label)
        if all(float(x).is_integer() for line in self.series for x in line.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        if len(self.series) + len(self.levels) > 1:
            axes.legend(frameon=False, fontsize=9)


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The finite points of a line; a long one averaged over stretches of equally many points."""
    points = np.array([x, y], np.float64)
    points = points[:, np.isfinite(points).all(axis=0)]
    if points.shape[1] <= _MAX_POINTS:
        return points[0], points[1]
    parts = np.array_split(points, _MAX_POINTS, axis=1)
    means = np.array([part.mean(axis=1) for part in parts]).T
    return means[0], means[1]
