r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/unified_shapes.py \
    --tokenizer=MODEL --output=W/pools

A pool of drawn things for in-context pairs: segmentation by masks, captioning by words, both with exact truth. It needs
a tokenizer of pictures of `config.image_size` pixels, and no download. A quarter of the classes stands in no picture of
training. `--config=...unified_shapes.py:size=64` draws pictures of 64 pixels, `:classes=texture-colour-form` makes two
classes of one, and `:runlocal,classes=form` writes 60 records of few classes, enough for three examples.
`:plain` shows each colour in one shade and asks about every thing of a scene, so that a picture has several answers.
"""

import ml_collections

from data_pipelines.in_context import NEVER_TRAIN, ONE_PICTURE
from lvm_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it."""
    args = parse_arg(arg, runlocal=False, plain=False, size=48, count=60_000, classes="colour-form")
    count = 48 if args["runlocal"] else args["count"]
    config = ml_collections.ConfigDict()
    config.name = "unified_shapes"
    config.version = "1.0.0"
    config.encoding = "pool"
    config.image_size = args["size"]  # the tokenizer's
    config.max_images = 2
    config.train_shards = 2 if args["runlocal"] else 16
    config.validation_shards = 1
    config.validation_fraction = 0.1 if args["runlocal"] else 0.02
    config.seed = 0
    config.max_bad_items = 0  # nothing that is drawn here can be bad
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
