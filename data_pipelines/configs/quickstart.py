r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/quickstart.py --config.root=W/corpus \
    --tokenizer=W/tokenizer/model --output=W/shards

The embedded corpus as visual sentences of at most 8 images of 32 x 32: all five categories of the paper, about 2,500
training sentences. `--config=...quickstart.py:runlocal` suits a much smaller corpus: one pass, at most 4 images.
"""

import ml_collections

from data_pipelines import assets
from lvm_jax.config import parse_arg
from lvm_jax.data.sentences.visual_sentence import Category

PHOTOGRAPHS = {name: assets.PHOTOGRAPHS[name] for name in ("licence", "origin")}
VIDEOS = {**PHOTOGRAPHS, "origin": "videos of the pack in data_pipelines/assets"}
RENDERED = {"licence": "Apache-2.0", "origin": "rendered by data_pipelines.embedded_corpus"}
SCENE_ROLES = ("segmentation", "depth", "normals", "edges", "boxes", "keypoints")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it."""
    small = parse_arg(arg, runlocal=False)["runlocal"]
    config = ml_collections.ConfigDict()
    config.name = "quickstart"
    config.version = "1.0.0"
    config.root = "runs/quickstart/corpus"
    config.image_size = 32
    config.encoding = "vqgan"  # how pictures become records, see `build.encoding`
    config.resize = "center"
    config.max_images = 4 if small else 8  # BOS + 8 x 64 codes: a row of 513 tokens
    config.train_shards = 2 if small else 8
    config.validation_shards = 1
    config.held_out = (
        config.get_ref("root") + "/validation.txt"
    )  # the tokenizer was trained without them
    config.seed = 0
    config.max_bad_items = 0  # our own corpus: nothing in it may be bad
    config.entries = _entries(config.get_ref("root"), small)
    return config


def _entries(root: ml_collections.FieldReference, small: bool) -> dict:
    n_pairs, n_frames = (2, 4) if small else (4, 8)

    def epochs(full: int) -> int:
        return 1 if small else full

    def photo_pairs(role: str, annotator: str, annotation_first: bool = False) -> dict:
        # 48 pixels on the short side: an edge of one pixel still shows at 32.
        kind = {"kind": "image_folder", "root": root + "/photos", "short_side": 48}
        return {
            "source": {**kind, "name": f"photos_{role}", **PHOTOGRAPHS},
            "annotators": {role: {"kind": annotator}},
            "composer": {
                "kind": "pairs",
                "annotation": role,
                "n_pairs": n_pairs,
                "annotation_first": annotation_first,
                "crop": 0.6,
            },
            "epochs": epochs(6),
            "items": "photos",
        }

    def scene_pairs(role: str) -> dict:
        source = {"kind": "annotated_images", "roles": ("image", role), **RENDERED}
        return {
            "source": {**source, "root": root + "/scenes", "name": f"scenes_{role}"},
            "composer": {"kind": "pairs", "annotation": role, "n_pairs": n_pairs},
            "epochs": 1,
            "items": "scenes",
        }

    single = {"kind": "image_folder", "root": root + "/photos", "name": "photos", **PHOTOGRAPHS}
    video = {"kind": "video_folder", "root": root + "/videos", "name": "videos", "short_side": 48}
    clips = {"kind": "frame_folders", "root": root + "/clips", "name": "clips", **RENDERED}
    turns = {
        "kind": "frame_folders",
        "root": root + "/turntables",
        "name": "turntables",
        **RENDERED,
    }
    return {
        "photos": {
            "source": single,
            "composer": {"kind": "single_image", "crop": 0.5},
            "epochs": epochs(2),
        },
        "photos_edges": photo_pairs("edges", "canny"),
        "colorization": photo_pairs("grey", "grey", annotation_first=True),
        "inpainting": photo_pairs("masked", "holes", annotation_first=True),
        **{f"scenes_{role}": scene_pairs(role) for role in SCENE_ROLES},
        "videos": {
            "source": {**video, **VIDEOS},
            "composer": {"kind": "video", "n_frames": n_frames, "strides": (1, 2, 4)},
            "epochs": epochs(24),
        },
        "clips": {
            "source": clips,
            "composer": {
                "kind": "annotated_video",
                "n_frames": n_pairs,
                "annotation": "segmentation",
                "order": "either",
                "strides": (1, 2, 3),
            },
            "epochs": epochs(2),
        },
        "turntables": {
            "source": {**turns, "role": "view", "category": int(Category.OBJECT_3D)},
            "composer": {"kind": "turntable", "n_views": n_frames},
            "epochs": epochs(2),
        },
    }
