r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/vary_pages.py --output=W/shards

The first stage of Vary (arXiv 2312.06109, section 3.2): pages, articles with tables and formulas, charts by matplotlib
and ECharts, photographs; no download, no model. The counts are the paper's times `scale`, 0.01 by default.
`--config=...vary_pages.py:runlocal` writes a few small ones. More, separated by commas:

  han_font=FILE    each kind in Chinese too, such as /usr/share/fonts/truetype/wqy/wqy-microhei.ttc
  texts=, han_texts=   a text file or a folder of .txt files in place of the sentences that we bring
  pdfs=DIR         every page of the PDF files in a folder
  images=DIR       photographs in place of the 128 that we bring
  echarts=FILE     another echarts.min.js
"""

import ml_collections

from data_pipelines.assets import PHOTOGRAPHS
from data_pipelines.configs.bases import asked, of_words
from data_pipelines.configs.vary_lines import DESCRIBE, DICT, OCR
from data_pipelines.documents import ONE_FILE
from lvm_jax.config import parse_arg

MARKDOWN = ("Convert the page to Markdown.", "Write the page as Markdown with LaTeX.")
# Of one language. Articles: those that the paper renders from LaTeX for its second stage.
_PAPER = {"pages": 1_000_000, "articles": 500_000, "charts": 250_000, "echarts": 500_000}
_HELD_OUT = 50  # seen items for one that is held out
_SMALL_PAGE = {"height": 320, "width": 320, "sizes": (9, 11)}
_SMALL_CHART = {"height": 160, "width": 240, "sizes": (8, 9), "labels": (2, 3)}
_SMALL_CHART |= {"title_characters": 12, "axis_titles": False}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; see the module for what `arg` may hold."""
    args = parse_arg(
        arg,
        runlocal=False,
        scale=0.01,
        han_font="",
        texts="",
        han_texts="",
        pdfs="",
        images="",
        echarts="",
    )
    config = of_words("vary_pages", small=args["runlocal"], shards=64)
    config.validation_fraction = 0.05  # of photographs and PDF files
    # A chart in a thousand has no room for its words; a font may lack a character of your texts, a PDF its text.
    config.max_bad_items = 10_000
    config.entries = _drawn(args, "en", args["texts"], "english", "words", {})
    if args["han_font"]:
        fonts = {"fonts": (args["han_font"],)}
        config.entries.update(_drawn(args, "zh", args["han_texts"], "han", "han", fonts))
    config.entries.update(_found(args))
    return config


def _drawn(args: dict, language: str, given: str, sentences: str, words: str, fonts: dict) -> dict:
    """The kinds that are rendered, in one language."""
    own = {"licence": "unknown", "origin": f"texts of {given}, rendered"} if given else {}
    page = _SMALL_PAGE if args["runlocal"] else {}
    chart = _SMALL_CHART if args["runlocal"] else {}
    by_echarts = {"renderer": "echarts", "echarts": args["echarts"]}
    kinds = {
        "pages": ({"kind": "pages", "texts": given or sentences, **page}, OCR),
        "articles": ({"kind": "articles", "texts": given or sentences, **page}, MARKDOWN),
        "charts": ({"kind": "charts", "texts": given or words, **chart}, DICT),
        "echarts": ({"kind": "charts", "texts": given or words, **chart, **by_echarts}, DICT),
    }
    entries = {}
    for kind, (source, questions) in kinds.items():
        count = 4 if args["runlocal"] else max(3, round(_PAPER[kind] * args["scale"]))
        name = f"{kind}_{language}"
        counts = {"name": name, "count": count, "held_out": max(2, count // _HELD_OUT)}
        entries[name] = asked({**source, **counts, **fonts, **own}, *questions)
    return entries


def _found(args: dict) -> dict:
    """Photographs, and PDF files if a folder is named."""
    photographs = PHOTOGRAPHS
    if args["images"]:
        photographs = {"root": args["images"], "origin": "the folder given as images"}
    entries: dict = {
        "negatives": {
            "source": {"kind": "negatives", "short_side": 512, **photographs},
            "composer": {"kind": "ask", "questions": DESCRIBE},
        }
    }
    if args["pdfs"]:
        entries["pdfs"] = {
            "source": {
                "kind": "pdfs",
                "root": args["pdfs"],
                "side": 320 if args["runlocal"] else 1024,
                "origin": "the folder given as pdfs",
            },
            "composer": {"kind": "ask", "questions": OCR},
            "together": ONE_FILE,
        }
    return entries
