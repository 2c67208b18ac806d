r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/vary_small.py:part=lines --output=W/shards

Pictures of 64 x 160 pixels with their words, for the small model of Vary that is released: lines in one font and in
many, blocks of up to three rows, bar charts, shapes, photographs. No download, no model. Run it with `:part=lines`,
`:part=fonts`, `:part=blocks` and `:part=rest`: data sets of their own, because training begins with the easiest.
`runlocal` writes a few records, and `part=rest,han_font=FILE` adds lines of Han.
"""

import ml_collections

from data_pipelines.configs.bases import asked, of_words
from data_pipelines.configs.vary_quickstart import DESCRIBE, DICT, INDENT, READ, photographs
from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError

# Those that matplotlib brings and that have every character of the texts.
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralBol",
)
NEW_FONTS = ("DejaVuSerif-Italic", "STIXGeneralItalic")  # only in held-out lines
PICTURE = {"height": 64, "width": 160}
_PRINT = {"fonts": FONTS, "sizes": (14, 20), "paper": (245, 255), "ink": (0, 40)}
# Source -> question, seen records and held-out ones, and what it is.
_SOURCES = {
    # Smaller than the others and at the top left of what the tower sees: there it learns to read within some minutes.
    "lines": (
        READ,
        20_000,
        256,
        {"kind": "lines", "height": 32, "width": 128, "sizes": (17, 19), "indent": INDENT},
    ),
    "fonts": (READ, 60_000, 256, {"kind": "lines", "max_characters": 16, **_PRINT}),
    "new_fonts": (
        READ,
        256,
        256,
        {"kind": "lines", "max_characters": 16, **_PRINT, "held_out_fonts": NEW_FONTS},
    ),
    "blocks": (
        READ,
        60_000,
        256,
        {
            "kind": "lines",
            "rows": 3,
            "min_characters": 10,
            "max_characters": 36,
            "indent": (2, 24),  # as cut out of a column; lines in many fonts stand anywhere
            **_PRINT,
        },
    ),
    "charts": (DICT, 20_000, 256, {"kind": "small_charts", "size": 18, "largest": 99}),
    "shapes": (DESCRIBE, 10_000, 256, {"kind": "shapes", "shapes": (1, 3), "sizes": (20, 40)}),
}
# Data set -> its sources.
_PARTS = {
    "lines": ("lines",),
    "fonts": ("fonts", "new_fonts"),
    "blocks": ("blocks",),
    "rest": ("charts", "shapes"),
}
_HAN = (
    READ,
    20_000,
    256,
    {"kind": "lines", "texts": "han", "sizes": (16, 20), "max_characters": 8, "indent": INDENT},
)
_PHOTO_PASSES = 10  # over 128 photographs


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `part=NAME` in `arg` chooses the data set, `runlocal` shrinks it, `han_font=FILE` adds Chinese."""
    args = parse_arg(arg, part="rest", runlocal=False, han_font="")
    if args["part"] not in _PARTS:
        raise UserError(f"part={args['part']} does not exist: choose one of {', '.join(_PARTS)}")
    small = args["runlocal"]
    config = of_words(f"vary_small_{args['part']}", small=small, shards=32)
    config.validation_fraction = 0.05  # of the photographs; what is drawn has keys for it
    config.max_bad_items = 200  # long words may need a fourth row
    config.entries = _entries(args["part"], small, args["han_font"])
    return config


def _entries(part: str, small: bool, han_font: str) -> dict:
    sources = {name: _SOURCES[name] for name in _PARTS[part]}
    if part == "rest" and han_font:
        question, seen, held_out, source = _HAN
        sources["han"] = (question, seen, held_out, {**source, "fonts": (han_font,)})
    entries = {
        name: asked(
            {
                **PICTURE,
                **source,
                "name": name,
                "count": 24 if small else seen,
                "held_out": 6 if small else held_out,
            },
            question,
        )
        for name, (question, seen, held_out, source) in sources.items()
    }
    if part == "rest":
        entries["photos"] = photographs(PICTURE["height"], 1 if small else _PHOTO_PASSES)
    return entries
