r"""Pages and charts a second of CPU time, by engine and language, in turns.

    python benchmarks/document_engines.py --rounds=3 --han_font=/usr/share/fonts/truetype/wqy/wqy-microhei.ttc

At the sizes of the recipe vary_pages: pages of 1024 x 1024, charts of 512 x 640 pixels; drawn, and then also encoded as
lossless WebP, as they go into shards. `--pdfs=DIR` adds pages of PDF files.
"""

import contextlib
import dataclasses
import time
from typing import Any

from absl import flags
from turns import in_turns

from data_pipelines.build.image_text import ImageTextEncoder
from data_pipelines.documents import Articles, Charts, Pages, Pdfs
from data_pipelines.sources.base import BadItem
from lvm_jax import cli
from lvm_jax.errors import UserError


def engines(han_font: str, pdfs: str) -> dict[str, Any]:
    """The sources, by name and language."""
    found: dict[str, Any] = {
        "pages (Pillow)": Pages(),
        "articles (typst)": Articles(),
        "charts (matplotlib)": Charts(),
        "charts (ECharts)": Charts(renderer="echarts"),
    }
    if han_font:
        for name, source in list(found.items()):
            found[f"{name}, han"] = dataclasses.replace(source, texts="han", fonts=(han_font,))
    if pdfs:
        found["PDF files (PDFium)"] = Pdfs(pdfs)
    return found


def rate(source: Any, keys: list[str]) -> dict[str, float]:
    """Items per second of CPU time of the process, and the share of bad items."""
    encoder, items = ImageTextEncoder(""), []
    begin = time.process_time()
    for key in keys:
        with contextlib.suppress(BadItem):
            items.append(source.load(key))
    drawn = time.process_time() - begin
    for item in items:
        encoder.encode(item["image"])
    return {
        "drawn": len(items) / drawn,
        "as_webp": len(items) / (time.process_time() - begin),
        "bad": 1 - len(items) / len(keys),
    }


def main() -> None:
    """Prints every round, and the medians."""
    args = flags.FLAGS
    runs = {}
    for name, source in engines(args.han_font, args.pdfs).items():
        keys = source.keys()
        seen = [key for key in keys if not key.startswith("held_out/")]
        wanted = args.items * (args.rounds + 1)  # the warm-up has some too
        if len(seen) < wanted:
            raise UserError(
                f"{name} has {len(seen)} items, {wanted} are needed: lower --items or --rounds"
            )
        some = iter([seen[i : i + args.items] for i in range(0, wanted, args.items)])
        runs[name] = lambda source=source, some=some: rate(source, next(some))
    for name, median in in_turns(runs, args.rounds).items():
        drawn, encoded = (
            f"{median['drawn']:.1f} a CPU-second",
            f"{median['as_webp']:.1f} with encoding",
        )
        print(f"{name}: {drawn}, {encoded}, {median['bad']:.1%} bad")


if __name__ == "__main__":
    flags.DEFINE_string("han_font", "", "a font file: the engines in Chinese too")
    flags.DEFINE_string("pdfs", "", "a folder of PDF files")
    flags.DEFINE_integer("items", 40, "of each engine in a round, none twice", lower_bound=2)
    flags.DEFINE_integer("rounds", 3, "of all", lower_bound=1)
    cli.run(main)
