"""Rendered charts and what they say, as a Python dict."""

import dataclasses
from collections.abc import Callable

import numpy as np

from data_pipelines.documents import sides
from data_pipelines.documents.chart_data import KINDS, STYLES, Chart
from data_pipelines.documents.chart_drawing import draw_chart
from data_pipelines.documents.corpus import label_of, read_texts
from data_pipelines.documents.echarts import draw_echart, script_path
from data_pipelines.documents.fonts import check_fonts, font_label, require_characters
from data_pipelines.documents.lines import check_range
from data_pipelines.items import Item, Picture, Text
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

RENDERERS = ("matplotlib", "echarts")


@dataclasses.dataclass(frozen=True)
class Charts:
    """Charts of random numbers: `{"image": [x], "text": [Text], "facets": [Text, ...]}`.

    Attributes:
      texts: titles and labels are its words, see `corpus.read_texts`.
      renderer: draws them, one of `RENDERERS`.
      echarts: for the renderer "echarts", see `echarts.script_path`.
      count, held_out: number of seen and of held-out charts.
      height, width: in pixels.
      kinds: see `chart_data.KINDS`.
      labels: fewest and most bars, points or sectors.
      series: the most series of bars or lines; a composite has two.
      largest: the largest number.
      decimals: whether some charts have numbers with a digit behind the point.
      axis_titles: whether axes have titles.
      styles, held_out_styles: names of `chart_data.STYLES`.
      fonts, held_out_fonts: see `fonts.font_path`.
      sizes: smallest and largest size of the type in pixels.
      title_characters: the longest title; labels have at most half of that.
      held_out_texts: share of the titles that only held-out charts have.
      seed: of every draw.
    """

    texts: str = "words"
    renderer: str = RENDERERS[0]
    echarts: str = ""
    count: int = 1000
    held_out: int = 100
    height: int = 512
    width: int = 640
    kinds: tuple[str, ...] = KINDS
    labels: tuple[int, ...] = (3, 6)
    series: int = 2
    largest: int = 100
    decimals: bool = True
    axis_titles: bool = True
    styles: tuple[str, ...] = tuple(STYLES)
    held_out_styles: tuple[str, ...] = ()
    fonts: tuple[str, ...] = ("DejaVuSans", "DejaVuSerif")
    held_out_fonts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (13, 18)
    title_characters: int = 24
    held_out_texts: float = 0.1
    seed: int = 0
    name: str = "charts"
    licence: str = "Apache-2.0"
    origin: str = "random numbers and words of data_pipelines/assets, drawn"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        sides.check_apart("fonts", self.fonts, self.held_out_fonts)
        sides.check_apart("styles", self.styles, self.held_out_styles)
        sides.check_fraction(self.held_out_texts)
        for what, given, known in (
            ("renderer", (self.renderer,), RENDERERS),
            ("kind", self.kinds, KINDS),
            ("style", (*self.styles, *self.held_out_styles), tuple(STYLES)),
        ):
            unknown = sorted(set(given) - set(known))
            if unknown or not given:
                raise UserError(
                    f"there is no {what} {(unknown or [''])[0]!r} of charts: known are {', '.join(known)}"
                )
        check_range("labels", self.labels, 12)
        check_range("sizes", self.sizes, min(self.height, self.width) // 4)
        if min(self.labels[0], self.series, self.sizes[0]) < 1 or self.title_characters < 2:
            raise UserError("labels, series and sizes must be at least 1, title_characters 2")
        if self.largest < self.labels[1]:
            raise UserError(f"largest is {self.largest}: at least the number of labels")

    def keys(self) -> list[str]:
        """See `sides.rendered_keys`; texts and fonts are opened, so that a mistake in them shows before any item."""
        read_texts(self.texts)
        check_fonts(self.fonts, self.held_out_fonts)
        if self.renderer == "echarts":
            script_path(self.echarts)
        return sides.rendered_keys(self.count, self.held_out)

    def load(self, key: str) -> Item:
        """One chart; see `Source`."""
        rng = sides.item_rng(self.seed, self.name, key)
        size = int(rng.integers(self.sizes[0], self.sizes[1] + 1))
        chart = self._sampled(key, size, rng)
        fonts = sides.choices(self.fonts, self.held_out_fonts, key)
        styles = sides.choices(self.styles, self.held_out_styles, key)
        font = fonts[int(rng.integers(len(fonts)))]
        style = styles[int(rng.integers(len(styles)))]
        require_characters(font, chart.texts, key)
        label = {
            "font": font_label(font) if self.held_out_fonts else "",
            "template": style if self.held_out_styles else "",
        }
        return {
            "image": [self._drawn(chart, style, font, size, key)],
            "text": [Text(chart.truth())],
            "facets": sides.facets([chart.title], **label),
        }

    def _drawn(self, chart: Chart, style: str, font: str, size: int, key: str) -> Picture:
        look = (chart, STYLES[style], font, size, self.height, self.width)
        if self.renderer == "echarts":
            return draw_echart(*look, script=script_path(self.echarts), key=key)
        return draw_chart(*look)

    def _sampled(self, key: str, size: int, rng: np.random.Generator) -> Chart:
        texts = read_texts(self.texts)
        longest = self.title_characters

        title = sides.drawn_text(lambda: label_of(texts, longest, rng), key, self.held_out_texts)
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        count = int(rng.integers(self.labels[0], self.labels[1] + 1))
        series = 1
        if kind in ("bar", "line"):
            series = int(rng.integers(1, self.series + 1))
        elif kind == "composite":
            series = 2
        # Labels stand side by side below the bars: as long as there is room for them. A letter is 0.6 of the size.
        room = longest if kind == "pie" else int(0.85 * self.width / (count * 0.6 * size))
        most = max(2, min(longest // 2, room))
        labels = _distinct(lambda: label_of(texts, most, rng), count)
        names = [""]
        if series > 1:
            names = _distinct(lambda: label_of(texts, longest // 2, rng), series)
        titles = ("", "")
        if self.axis_titles and kind != "pie":
            titles = (label_of(texts, longest // 2, rng), label_of(texts, longest // 2, rng))
        values: dict[str, dict[str, float]] = {}
        for name in names:
            others = [list(v.values()) for v in values.values()]
            numbers = self._numbers(count, kind, others, rng)
            values[name] = dict(zip(labels, numbers, strict=True))
        return Chart(kind, title, *titles, values)

    def _numbers(
        self, count: int, kind: str, others: list[list[float]], rng: np.random.Generator
    ) -> list[float]:
        """Random numbers; those of a second line keep away from the first, and from numbers at the foot of bars."""
        if kind == "pie":
            # Sectors of whole percents, none too thin to label.
            cuts = rng.dirichlet(np.full(count, 3.0)) * (100 - 4 * count)
            parts = np.floor(cuts).astype(int) + 4
            parts[0] += 100 - parts.sum()
            return [int(part) for part in parts]
        with_digit = self.decimals and rng.random() < 0.3
        numbers: list[float] = []
        for place in range(count):
            for _ in range(100):
                drawn = float(rng.integers(1, self.largest + 1))
                if with_digit:
                    drawn = round(float(rng.uniform(1, self.largest)), 1)
                apart = all(abs(drawn - other[place]) >= 0.15 * self.largest for other in others)
                above = drawn >= 0.25 * self.largest
                if kind == "bar" or not others or (apart if kind == "line" else above):
                    break
            numbers.append(drawn)
        return numbers


def _distinct(draw: Callable[[], str], count: int) -> list[str]:
    """Different words: a dict has each label once."""
    found: list[str] = []
    for _ in range(1000):
        word = draw()
        if word and word not in found:
            found.append(word)
        if len(found) == count:
            return found
    raise UserError(f"the texts have no {count} different labels: give more, or longer titles")
