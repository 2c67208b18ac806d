r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/vary_lines.py --output=W/shards

Rendered lines, small charts and natural images for the first stage of Vary: a vision vocabulary that learns to read. It
needs no download and no model. `--config=...vary_lines.py:runlocal` writes few records, and
`:han_font=/usr/share/fonts/truetype/wqy/wqy-microhei.ttc` (apt fonts-wqy-microhei) adds lines of Han.
"""

import ml_collections

from data_pipelines.assets import PHOTOGRAPHS
from data_pipelines.configs.bases import asked, of_words
from lvm_jax.config import parse_arg

OCR = ("Read the text.", "What does the picture say?")
DICT = ("Write the chart as a Python dict.",)
DESCRIBE = ("Describe the picture.",)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it, `han_font=FILE` adds Chinese lines."""
    args = parse_arg(arg, runlocal=False, han_font="")
    config = of_words("vary_lines", small=args["runlocal"], shards=16)
    config.entries = _entries(20 if args["runlocal"] else 40_000, args["han_font"])
    return config


def _entries(lines: int, han_font: str) -> dict:
    line = {"kind": "lines", "height": 24, "width": 128, "count": lines}
    chart = {"kind": "charts", "height": 128, "width": 192, "sizes": (9, 10), "labels": (2, 4)}
    small = {"title_characters": 12, "axis_titles": False, "decimals": False, "largest": 20}
    count = max(3, lines // 10)
    entries = {
        "lines": asked({**line, "name": "lines", "held_out": max(2, lines // 40)}, *OCR),
        "charts": asked(
            {
                **chart,
                **small,
                "kinds": ("bar", "line", "pie"),
                "name": "charts",
                "count": count,
                "held_out": max(2, count // 10),
            },
            *DICT,
        ),
        "negatives": {
            "source": {"kind": "negatives", "short_side": 128, **PHOTOGRAPHS},
            "composer": {"kind": "ask", "questions": DESCRIBE},
        },
    }
    if han_font:
        han = {"texts": "han", "fonts": (han_font,), "sizes": (15, 17), "max_characters": 7}
        han_line = {**line, **han, "name": "han", "held_out": max(2, lines // 40)}
        entries["han"] = asked(han_line, *OCR)
    return entries
