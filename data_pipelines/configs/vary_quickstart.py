r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/vary_quickstart.py --output=W/shards

Pictures of 32 pixels in height with their words, for Vary's quickstart: lines of text, bar charts, shapes, photographs.
No download, no model. `:runlocal` writes a few of each, and `:han_font=FILE` adds lines of Han, which take a tower
several times as long as the rest.
"""

import ml_collections

from data_pipelines.assets import ROOT
from data_pipelines.documents import HELD_OUT
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
    config = ml_collections.ConfigDict()
    config.name = "vary_quickstart"
    config.version = "1.0.0"
    config.image_size = 0  # pictures keep their size: the view of a tower fits them
    config.encoding = "image_text"
    config.max_images = 1
    config.train_shards = 2 if small else 8
    config.validation_shards = 1
    config.validation_fraction = 0.15  # of the photographs; what is drawn has keys for it
    config.seed = 0
    config.max_bad_items = 0  # all is drawn: what a font cannot write is a mistake here
    config.entries = _entries(small, args["han_font"])
    return config


def _entries(small: bool, han_font: str) -> dict:
    def drawn(kind: str, question: str, counts: tuple[int, int], **source: object) -> dict:
        count, held_out = (24, 6) if small else counts
        return {
            "source": {"kind": kind, "count": count, "held_out": held_out, **source},
            "composer": {"kind": "ask", "questions": (question,)},
            "together": HELD_OUT,  # the held-out items are the validation split
        }

    entries = {
        "lines": drawn("lines", READ, _COUNTS["lines"], height=32, sizes=(17, 19), indent=INDENT),
        "charts": drawn(
            "small_charts", DICT, _COUNTS["charts"], name="charts", bars=(1, 3), letters=10
        ),
        # Two each, so that the parts of a held-out description are known from others.
        "shapes": drawn("shapes", DESCRIBE, _COUNTS["shapes"], shapes=(2, 2), sizes=(20, 28)),
        "photos": {
            "source": {
                "kind": "negatives",
                "name": "photos",
                "root": str(ROOT / "photos"),
                "answers": ("A photograph.",),
                "short_side": 32,
                "licence": "a licence a file, see data_pipelines/assets/LICENSES.md",
                "origin": "photographs of the pack in data_pipelines/assets",
            },
            "composer": {"kind": "ask", "questions": (DESCRIBE,)},
            "epochs": 1 if small else _PHOTO_PASSES,
        },
    }
    if han_font:
        han = {"texts": "han", "fonts": (han_font,), "sizes": (16, 17), "max_characters": 7}
        entries["han"] = drawn("lines", READ, _HAN, name="han", height=32, indent=INDENT, **han)
    return entries
