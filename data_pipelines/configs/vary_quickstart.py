r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/vary_quickstart.py --output=W/shards

Pictures of 32 pixels in height with their words, for Vary's quickstart: lines of text, bar charts, shapes, photographs.
No download, no model. `:runlocal` writes a few of each, and `:han_font=FILE` adds lines of Han, which take a tower
several times as long as the rest.
"""

import ml_collections

from data_pipelines.assets import PHOTOGRAPHS
from data_pipelines.configs.bases import asked, of_words
from lvm_jax.config import parse_arg

READ = "Read the text."
DICT = "Write the chart as a Python dict."
DESCRIBE = "Describe the picture."
QUESTIONS = (READ, DICT, DESCRIBE)
INDENT = (2, 10)  # pixels to the left of a line: one patch more or less
# Source -> seen records and held-out ones.
_COUNTS = {"lines": (10_000, 256), "charts": (6_000, 128), "shapes": (3_000, 128)}
_HAN = (3_000, 128)
_PHOTO_PASSES = 3  # over 128 photographs


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it, `han_font=FILE` adds Chinese lines."""
    args = parse_arg(arg, runlocal=False, han_font="")
    small = args["runlocal"]
    config = of_words("vary_quickstart", small=small, shards=8)
    config.validation_fraction = 0.15  # of the photographs; what is drawn has keys for it
    config.entries = _entries(small, args["han_font"])
    return config


def photographs(short_side: int, epochs: int) -> dict:
    """The entry of our photographs, of which nothing is to be read."""
    answer = {"answers": ("A photograph.",), "short_side": short_side}
    return {
        "source": {"kind": "negatives", "name": "photos", **answer, **PHOTOGRAPHS},
        "composer": {"kind": "ask", "questions": (DESCRIBE,)},
        "epochs": epochs,
    }


def _entries(small: bool, han_font: str) -> dict:
    def drawn(kind: str, question: str, counts: tuple[int, int], **source: object) -> dict:
        count, held_out = (24, 6) if small else counts
        counted = {"kind": kind, "count": count, "held_out": held_out, **source}
        return asked(counted, question)

    entries = {
        "lines": drawn("lines", READ, _COUNTS["lines"], height=32, sizes=(17, 19), indent=INDENT),
        "charts": drawn(
            "small_charts", DICT, _COUNTS["charts"], name="charts", bars=(1, 3), letters=10
        ),
        # Two each, so that the parts of a held-out description are known from others.
        "shapes": drawn("shapes", DESCRIBE, _COUNTS["shapes"], shapes=(2, 2), sizes=(20, 28)),
        "photos": photographs(32, 1 if small else _PHOTO_PASSES),
    }
    if han_font:
        han = {"texts": "han", "fonts": (han_font,), "sizes": (16, 17), "max_characters": 7}
        entries["han"] = drawn("lines", READ, _HAN, name="han", height=32, indent=INDENT, **han)
    return entries
