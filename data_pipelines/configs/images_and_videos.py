r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/images_and_videos.py \
    --config.images=DIR --config.videos=DIR --config.pairs=DIR --tokenizer=MODEL --output=SHARDS

Builds from your own folders, any one or more of three:
  images  jpg, png or webp files, also in sub-folders: single images, colorization, inpainting and edges
  videos  mp4, webm, mov, mkv, avi, gif: 16 frames at a stride of 10, 20 or 30
  pairs   one folder per item, with image.png and annotation.png: 8 pairs a sentence
If the annotation has another name: `--config.entries.pairs.composer.annotation=depth`. If there are too few files:
`--config.entries.pairs.composer.n_pairs=2`. `--config=...images_and_videos.py:runlocal` is small: images of 32 pixels,
2 pairs, 4 frames, 2 shards.
"""

import ml_collections

from lvm_jax.config import parse_arg

FOR_IMAGES = {"licence": "unknown", "origin": "the folder given as --config.images"}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it."""
    small = parse_arg(arg, runlocal=False)["runlocal"]
    n_pairs, n_frames = (2, 4) if small else (8, 16)
    config = ml_collections.ConfigDict()
    config.name = "images_and_videos"
    config.version = "1.0.0"
    config.images = ""
    config.videos = ""
    config.pairs = ""
    config.image_size = 32 if small else 256
    config.encoding = "vqgan"  # how pictures become records, see `build.encoding`
    config.resize = "squash"
    config.max_images = 4 if small else 16
    config.train_shards = 2 if small else 16
    config.validation_shards = 1
    config.validation_fraction = 0.02
    config.seed = 0
    config.max_bad_items = 100
    images = config.get_ref("images")
    config.entries = {
        "images": {
            "source": {"kind": "image_folder", "root": images, "name": "images", **FOR_IMAGES},
            "composer": {"kind": "single_image", "crop": 0.5},
            "epochs": 1,
        },
        "edges": _from_images(images, "edges", "canny", n_pairs),
        "colorization": _from_images(images, "grey", "grey", n_pairs, annotation_first=True),
        "inpainting": _from_images(images, "masked", "holes", n_pairs, annotation_first=True),
        "videos": {
            "source": {
                "kind": "video_folder",
                "root": config.get_ref("videos"),
                "max_frames": 1024,
                "licence": "unknown",
                "origin": "the folder given as --config.videos",
            },
            "composer": {"kind": "video", "n_frames": n_frames, "strides": (10, 20, 30)},
            "epochs": 1,
        },
        "pairs": {
            "source": {
                "kind": "annotated_images",
                "root": config.get_ref("pairs"),
                "name": "pairs",
                "licence": "unknown",
                "origin": "the folder given as --config.pairs",
            },
            "composer": {"kind": "pairs", "annotation": "annotation", "n_pairs": n_pairs},
            "epochs": 2,
        },
    }
    return config


def _from_images(
    root: ml_collections.FieldReference,
    role: str,
    annotator: str,
    n_pairs: int,
    annotation_first: bool = False,
) -> dict:
    return {
        "source": {
            "kind": "image_folder",
            "root": root,
            "short_side": 384,
            "name": f"images_{role}",
            **FOR_IMAGES,
        },
        "annotators": {role: {"kind": annotator}},
        "composer": {
            "kind": "pairs",
            "annotation": role,
            "n_pairs": n_pairs,
            "annotation_first": annotation_first,
            "crop": 0.7,
        },
        "epochs": 1,
        "items": "images",
    }
