"""Charts of lines, bars and intervals, as SVG for the page (in its light or dark colours) and as PNG for elsewhere."""

import abc
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lvm_jax.errors import UserError

PALETTE = (
    "#3b7dd8", "#e67e22", "#279260", "#a55bc9", "#17a2b8", "#b8860b", "#d6569a", "#8d5a3a", "#c0392b", "#7f8c8d",
)  # fmt: skip
_CROWDED = 6  # entries of a legend, or groups of bars
_INK = "#707274"  # legible on white and on black; in the SVG it becomes the page's text colour
_MAX_POINTS = 400  # of a line: about two pixels a point at the usual width
_STYLE: Any = {
    "svg.fonttype": "none",  # keeps text as text, and not as paths
    "svg.hashsalt": "lvm_jax",  # fixed ids, so that the same chart gives the same bytes
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
    """A line: y over x.

    Attributes:
      label: for the legend; "" stays out of it.
      x, y: the points.
      marker: whether to draw a dot at each point.
      line: how to join the points; "" draws only dots.
      colour: index into the palette; by default the place among the series.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    marker: bool = False
    line: Literal["-", "--", ""] = "-"
    colour: int | None = None


@dataclasses.dataclass(frozen=True)
class Level:
    """A dashed horizontal line to compare with."""

    label: str
    y: float


class Picture(abc.ABC):
    """A picture that Matplotlib draws."""

    size: tuple[float, float]

    def svg(self) -> str:
        """An `<svg>` element whose text and axes take on the page's text colour."""
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

    @abc.abstractmethod
    def _draw(self, axes: Any) -> None: ...


@dataclasses.dataclass(frozen=True)
class Chart(Picture):
    """A line chart.

    Attributes:
      x_label, y_label: with units.
      series: lines, without their NaN and infinite points; long lines are averaged down to 400 points.
      levels: horizontal lines.
      size: width and height in inches, at 100 pixels per inch.
      log: which axes are logarithmic, such as "xy".
    """

    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    size: tuple[float, float] = (7.6, 3.6)
    log: str = ""

    def _draw(self, axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for place, line in enumerate(self.series):
            axes.plot(
                *thinned(line.x, line.y),
                label=line.label or "_",  # Matplotlib's legend skips labels that begin with _
                color=PALETTE[(place if line.colour is None else line.colour) % len(PALETTE)],
                linewidth=1.2 if line.line == "--" else 1.6,
                linestyle=line.line or "none",
                marker="o" if line.marker else None,
                markersize=4,
            )
        for level, colour in zip(self.levels, PALETTE[::-1] * len(self.levels)):
            label = f"{level.label}: {level.y:#.3g}"
            axes.axhline(level.y, label=label, color=colour, linestyle="--", linewidth=1.2)
        axes.set(xlabel=self.x_label, ylabel=self.y_label)
        if "x" in self.log:
            _logarithmic(axes, "x", [x for line in self.series for x in line.x])
        elif all(float(x).is_integer() for line in self.series for x in line.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if "y" in self.log:
            _logarithmic(axes, "y", [y for line in self.series for y in line.y])
        _tidy(axes, sum(bool(x.label) for x in (*self.series, *self.levels)))


@dataclasses.dataclass(frozen=True)
class Bars(Picture):
    """Groups of bars on a logarithmic axis from 1, for perplexities.

    Attributes:
      y_label: with units.
      groups: names along the axis.
      series: (label, a value for each group); NaN draws no bar.
      size: as in `Chart`.
    """

    y_label: str
    groups: Sequence[str]
    series: Sequence[tuple[str, Sequence[float]]]
    size: tuple[float, float] = (7.6, 3.6)

    def _draw(self, axes: Any) -> None:
        places, width = np.arange(len(self.groups)), 0.8 / len(self.series)
        for i, (label, values) in enumerate(self.series):
            left = places + (i - (len(self.series) - 1) / 2) * width
            axes.bar(left, values, width * 0.92, label=label, color=PALETTE[i % len(PALETTE)])
        axes.set_ylabel(self.y_label)
        axes.set_xticks(places, self.groups)
        if len(self.groups) > _CROWDED:
            axes.tick_params(axis="x", labelrotation=30)
        _logarithmic(axes, "y", [1, *(y for _, values in self.series for y in values)])
        axes.set_ylim(bottom=1)
        _tidy(axes)
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=5)


@dataclasses.dataclass(frozen=True)
class Intervals(Picture):
    """A row for each name, from the top: a dot, and its interval.

    Attributes:
      x_label: with units.
      rows: (name, value, half of its interval, 0 if unknown).
      width: in inches; the rows set the height.
    """

    x_label: str
    rows: Sequence[tuple[str, float, float]]
    width: float = 4.4

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return self.width, 0.8 + 0.24 * len(self.rows)

    def _draw(self, axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        names, values, margins = zip(*self.rows, strict=True)
        places = np.arange(len(names))
        axes.errorbar(values, places, xerr=margins, fmt="o", markersize=4, color=PALETTE[0])
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlabel(self.x_label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)


def _tidy(axes: Any, labels: int = 0) -> None:
    """Removes the box; adds a legend if there are several labels, beside the chart if there are many."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    if labels > 1:
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if labels > _CROWDED else {}
        axes.legend(frameon=False, fontsize=9, **beside)


def _logarithmic(axes: Any, which: str, values: Sequence[float]) -> None:
    """Makes an axis logarithmic, with readable ticks even if it spans less than a power of ten."""
    from matplotlib.ticker import AutoLocator, EngFormatter, FuncFormatter, LogLocator, NullLocator

    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axes.set(**{f"{which}scale": "log"})
    finite = [v for v in values if np.isfinite(v) and v > 0]
    if not finite:
        return
    span = max(finite) / min(finite)
    if span < 1e3:
        axis.set_major_locator(AutoLocator() if span < 4 else LogLocator(subs=(1, 2, 5)))
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axis.set_major_formatter(EngFormatter(sep="") if max(finite) >= 1e4 else plain)
    axis.set_minor_locator(NullLocator())


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The finite points of a line; a long one is averaged over stretches of (nearly) equal length."""
    points = np.array([x, y], np.float64)
    points = points[:, np.isfinite(points).all(axis=0)]
    if points.shape[1] <= _MAX_POINTS:
        return points[0], points[1]
    parts = np.array_split(points, _MAX_POINTS, axis=1)
    means = np.array([part.mean(axis=1) for part in parts]).T
    return means[0], means[1]
