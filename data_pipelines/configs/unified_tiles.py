r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/unified_tiles.py \
    --tokenizer=MODEL --output=W/pools

A pool of squares of tiles with some colours marked, and only the examples can say which. Mixed with things of
`unified_shapes.py:plain`, it makes a small decoder read its examples. `:size=64` draws squares of 64 pixels, and
`:runlocal` few of them.
"""

import ml_collections

from data_pipelines.configs.bases import of_pool
from data_pipelines.in_context import ONE_PICTURE
from lvm_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it."""
    args = parse_arg(arg, runlocal=False, size=32, sets=2_000)
    config = of_pool("unified_tiles", args["size"], small=args["runlocal"])
    config.entries = {
        "tiles": {
            "source": {
                "kind": "marked_tiles",
                "sets": 10 if args["runlocal"] else args["sets"],
                "pictures": 6,
                "kinds": (3, 8),
                "cells": args["size"] // 4,  # a tile is a code of the quickstart's tokenizer
                "size": args["size"],
            },
            "composer": {"kind": "about"},
            "together": ONE_PICTURE,
        }
    }
    return config
