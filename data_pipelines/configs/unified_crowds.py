r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/unified_crowds.py \
    --tokenizer=MODEL --output=W/pools

A pool of crowds: five to nine things in two to four colours, asked about by colour. Their masks and boxes hold many
decisions, so that a small decoder learns to look for a colour; mixed with things of `unified_shapes.py:plain`, whose
classes must be colours too. `:size=64` draws pictures of 64 pixels, and `:runlocal` few of them.
"""

import ml_collections

from data_pipelines.configs.bases import of_pool
from data_pipelines.in_context import ONE_PICTURE
from lvm_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it."""
    args = parse_arg(arg, runlocal=False, size=32, count=3_000)
    config = of_pool("unified_crowds", args["size"], small=args["runlocal"])
    config.entries = {
        "crowds": {
            "source": {
                "kind": "drawn_crowds",
                "count": 48 if args["runlocal"] else args["count"],
                "size": args["size"],
            },
            "composer": {"kind": "about"},
            "together": ONE_PICTURE,
        }
    }
    return config
