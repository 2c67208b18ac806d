r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/unified_shapes.py \
    --tokenizer=MODEL --output=W/pools

A pool of drawn things for in-context pairs: segmentation by masks, captioning by words, both with exact truth. It needs
a tokenizer of pictures of `config.image_size` pixels, and no download. A quarter of the classes stands in no picture of
training. `--config=...unified_shapes.py:size=64` draws pictures of 64 pixels, `:classes=texture-colour-form` makes two
classes of one, and `:runlocal,classes=form` writes 60 records of few classes, enough for three examples.
`:plain` shows each colour in one shade and asks about every thing of a scene, so that a picture has several answers.
"""

import ml_collections

from data_pipelines.configs.bases import of_pool
from data_pipelines.in_context import NEVER_TRAIN, ONE_PICTURE
from lvm_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it."""
    args = parse_arg(arg, runlocal=False, plain=False, size=48, count=60_000, classes="colour-form")
    count = 48 if args["runlocal"] else args["count"]
    config = of_pool("unified_shapes", args["size"], small=args["runlocal"])
    config.max_images = 2
    config.train_shards = 2 if args["runlocal"] else 16
    config.entries = {
        "shapes": {
            "source": {
                "kind": "drawn_objects",
                "count": count,
                "held_out": max(12, count // 50),
                "class_words": tuple(args["classes"].split("-")),
                "unseen_share": 0.25,
                "things": (2, 3),
                "size": args["size"],
                "plain_ground": True,  # a small tokenizer keeps outlines better before one colour
                "one_shade": args["plain"],
                "every_thing": args["plain"],
            },
            # The whole picture, and once more with its box drawn, for boxes="image".
            "composer": {"kind": "about", "boxed": not args["plain"]},
            "together": ONE_PICTURE,
            "never_train": NEVER_TRAIN,
        }
    }
    return config
