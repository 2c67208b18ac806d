"""Charts drawn by Apache ECharts in V8, without a browser: `pip install 'lvm_jax[documents]'`.

Shape legend: H, W of the picture.
"""

import functools
import importlib.util
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8

from data_pipelines.documents.chart_data import Chart, ChartStyle, shown_number
from data_pipelines.documents.fonts import advance
from data_pipelines.documents.typesetting import Face, draw_svg, face_of
from data_pipelines.sources.base import BadItem
from lvm_jax.errors import UserError

# A package that brings the library as published, and where in it.
_PACKAGE, _SCRIPT = "vizly", "assets/echarts.min.js"
_OURS = Path(__file__).with_name("echarts.js")
_MEASURED = 100  # pixels of the type that widths are measured at
# ECharts measures a font once; widths of two fonts of one name must not meet, nor two charts in one engine.
_DRAWING = threading.Lock()


def script_path(given: str) -> str:
    """The file of ECharts.

    Args:
      given: `echarts.min.js` of version 5 or 6, or "" for the one that `lvm_jax[documents]` installs.

    Raises:
      UserError: there is no such file, or ECharts is not installed.
    """
    if given:
        if not Path(given).is_file():
            raise UserError(
                f"there is no file {given}: name echarts.min.js of Apache ECharts, or leave the field empty"
            )
        return given
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _SCRIPT).is_file():
            return str(path)
    raise UserError(
        "ECharts is not installed: pip install 'lvm_jax[documents]', or name its echarts.min.js in the field echarts"
    )


def draw_echart(
    chart: Chart,
    style: ChartStyle,
    font: str,
    size: int,
    height: int,
    width: int,
    *,
    script: str,
    key: str,
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of a chart; see `chart_drawing.draw_chart`.

    Args:
      script: a file of ECharts, see `script_path`.
      key: of the item, for messages.

    Raises:
      BadItem: there is no room for its words.
    """
    face = face_of(font)
    option = _option(chart, style, face, size, height)
    if chart.kind == "pie":
        option["series"][0]["radius"] = _radius(chart, font, size, height, width, key)
    with _DRAWING:
        svg = _engine(script, font).call("drawn", option, width, height, _advances(chart, font))
    _check_words(svg, chart, key)
    picture = draw_svg(svg, face, height, width)
    _check_edges(picture, key)
    return picture


@functools.lru_cache(maxsize=16)
def _engine(script: str, font: str) -> Any:
    """V8 with ECharts, one for each font.

    Raises:
      UserError: mini-racer is not installed, or the file holds something else.
    """
    del font
    try:
        from py_mini_racer import JSEvalException, MiniRacer
    except ImportError as error:
        raise UserError(
            "ECharts runs in the package mini-racer: pip install 'lvm_jax[documents]'"
        ) from error
    engine = MiniRacer()
    try:
        engine.eval(Path(script).read_text(encoding="utf-8"))
        engine.eval(_OURS.read_text(encoding="utf-8"))
    except (JSEvalException, UnicodeDecodeError) as error:
        why = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{script} is not echarts.min.js of Apache ECharts ({why}): name that file"
        ) from error
    return engine


def _advances(chart: Chart, font: str) -> dict[str, float]:
    """The width of each character that may be drawn, over the size of the type."""
    characters = {*"".join(chart.texts), *"0123456789.,:- "}
    return {c: advance(font, _MEASURED, c) / _MEASURED for c in sorted(characters)}


def _option(chart: Chart, style: ChartStyle, face: Face, size: int, height: int) -> dict[str, Any]:
    """What ECharts is asked to draw."""
    words = {
        "fontFamily": face.family,
        "fontWeight": face.weight,
        "fontStyle": face.style,
        "fontSize": size,
        "color": style.ink,
    }
    option: dict[str, Any] = {
        "animation": False,
        "backgroundColor": style.paper,
        "color": list(style.colours),
        "textStyle": words,
        "title": {"text": chart.title, "left": "center", "top": size // 2, "textStyle": words},
        "series": [_series(chart, name, style, words) for name in chart.values],
    }
    if chart.kind == "pie":
        return option
    named = list(chart.values) != [""]
    if named:
        option["legend"] = {"bottom": size // 2, "textStyle": words, "data": list(chart.values)}
    option["grid"] = {
        "containLabel": True,
        "top": 3 * size,
        "left": size + 2 * size * bool(chart.y_title),
        "right": size,
        "bottom": size + 2 * size * bool(chart.x_title) + 2 * size * named,
        "show": style.frame,
        "borderColor": style.ink,
    }
    line = {"show": True, "lineStyle": {"color": style.ink}}
    labels = {"show": True, "interval": 0, "hideOverlap": False, **words}
    option["xAxis"] = {
        "type": "category",
        "data": chart.labels,
        "axisLine": line,
        "axisLabel": labels,
        "name": chart.x_title,
        "nameLocation": "middle",
        "nameGap": 2 * size,
        "nameTextStyle": words,
    }
    option["yAxis"] = {
        "type": "value",
        "axisLine": line,
        "axisLabel": {"show": True, **words},
        "boundaryGap": [0, _headroom(chart, size, height)],
        "splitLine": {"show": style.grid, "lineStyle": {"color": "#909090", "width": 0.5}},
        "name": chart.y_title,
        "nameLocation": "middle",
        "nameRotate": 90,
        "nameGap": _gap(chart, size),
        "nameTextStyle": words,
    }
    return option


def _headroom(chart: Chart, size: int, height: int) -> str:
    """Room for the numbers above bars and lines, as ECharts counts it: over the span of the values."""
    values = [value for series in chart.values.values() for value in series.values()]
    span = (max(values) - min(values)) or max(values)
    return f"{100 * (size + 10) / (height - 7 * size) * max(values) / span:.0f}%"


def _gap(chart: Chart, size: int) -> float:
    """Pixels between the axis of numbers and its title: the numbers stand between."""
    largest = max(value for series in chart.values.values() for value in series.values())
    return 8 + size + 0.65 * size * len(f"{1.2 * largest:.0f}")


def _series(chart: Chart, name: str, style: ChartStyle, words: dict[str, Any]) -> dict[str, Any]:
    values = chart.values[name]
    data = [
        {"name": label, "value": value, "shown": str(shown_number(value))}
        for label, value in values.items()
    ]
    # Readable on bars, lines and grid alike.
    behind = {"backgroundColor": f"{style.paper}c0", "padding": 1, "textBorderWidth": 0}
    label = {"show": True, **words, **behind}
    series: dict[str, Any] = {"name": name, "data": data, "label": label}
    if chart.kind == "pie":
        edge = {"borderColor": style.paper, "borderWidth": 1}
        # ECharts would end a long label in dots.
        return series | {
            "type": "pie",
            "label": label | {"overflow": "none"},
            "itemStyle": edge,
            "labelLine": {"length": words["fontSize"] // 2, "length2": words["fontSize"] // 2},
        }
    if name not in chart.bars:
        return series | {
            "type": "line",
            "label": label | {"position": "top"},
            "symbol": "circle",
            "symbolSize": 6,
        }
    # Bars under lines have their numbers at the foot, out of the lines' way.
    place = "insideBottom" if chart.kind == "composite" else "top"
    return series | {"type": "bar", "label": label | {"position": place}}


def _radius(chart: Chart, font: str, size: int, height: int, width: int, key: str) -> int:
    """Of a pie: labels to its left and right stay in the picture."""
    (values,) = chart.values.values()
    widest = max(advance(font, size, f"{k}: {shown_number(v)}") for k, v in values.items())
    radius = int(min(0.34 * height, width / 2 - widest - 2.5 * size))
    if radius < 2 * size:
        raise BadItem(
            key,
            f"a label of the pie takes {widest:.0f} of {width} pixels: lower sizes or title_characters",
        )
    return radius


def _check_words(svg: str, chart: Chart, key: str) -> None:
    """What the truth says must be in the picture: ECharts leaves words out where it finds no room."""
    shown = [
        "".join(found.itertext())
        for found in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]
    told = chart.texts
    numbers = [
        (label, str(shown_number(value)))
        for series in chart.values.values()
        for label, value in series.items()
    ]
    if chart.kind == "pie":
        told = [chart.title, *(f"{label}: {number}" for label, number in numbers)]
    else:
        told = [*told, *(number for _, number in numbers)]
    absent = [text for text in told if told.count(text) > shown.count(text)]
    if absent:
        raise BadItem(key, f"ECharts left out {absent[0]!r}: lower sizes, labels or series")


def _check_edges(picture: UInt8[np.ndarray, "H W 3"], key: str) -> None:
    """Words that reach the edge are cut."""
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    if any((edge != edge[0]).any() for edge in edges):
        raise BadItem(
            key, "a word reaches the edge of the picture: lower sizes or title_characters"
        )
