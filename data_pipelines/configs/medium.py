r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/medium.py --config.images=PHOTOS \
    --config.cutouts=CUTOUTS --config.backgrounds=BACKGROUNDS --config.meshes=MESHES --tokenizer=MODEL --output=SHARDS

All five categories at 64 pixels, from data that install by package name; images, cutouts and meshes are optional:
  images       photographs: apt gcompris-qt-data, lomiri-wallpapers-16.04, mate-backgrounds, ... (jpg, png, webp)
  cutouts      objects with alpha: apt tuxpaint-stamps-default, usr/share/tuxpaint/stamps (GPL-2)
  backgrounds  photographs to paste them on; keep them apart from images, or training sees held-out ones
  meshes       textured household objects: apt sweethome3d-furniture, its .sh3f files unzipped (CC0 and CC-BY-3.0)
Walks through Freedoom and simulated bodies come with `pip install vizdoom 'lvm_jax[mujoco]'`. docs/data_pipelines.md
has every command. Objects, maps, bodies and photographs are held out whole. `--config=...medium.py:runlocal` is a
smaller version.
"""

import ml_collections

from lvm_jax.config import parse_arg
from lvm_jax.data.sentences.visual_sentence import Category

PHOTOGRAPHS = {"licence": "a licence a file", "origin": "the folder given as --config.images"}
DAMAGE = {  # role -> annotator
    "noisy": "noise",
    "rain": "rain",
    "dark": "low_light",
    "blurred": "blur",
    "drawing": "posterise",
    "grey": "grey",
    "masked": "holes",
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `runlocal` in `arg` shrinks it."""
    small = parse_arg(arg, runlocal=False)["runlocal"]
    config = ml_collections.ConfigDict()
    config.name = "medium"
    config.version = "1.0.0"
    config.images = ""
    config.cutouts = ""
    config.backgrounds = ""
    config.meshes = ""
    config.image_size = 64
    config.encoding = "vqgan"  # how pictures become records, see `build.encoding`
    config.resize = "center"
    config.max_images = 16
    config.train_shards = 2 if small else 32
    config.validation_shards = 1
    config.validation_fraction = 0.04
    config.seed = 0
    config.max_bad_items = 1000
    config.entries = {
        **_photographs(config.get_ref("images"), small),
        **_cutouts(config.get_ref("cutouts"), config.get_ref("backgrounds"), small),
        **_walks(small),
        **_bodies(small),
        "objects": {
            "source": {
                "kind": "meshes",
                "root": config.get_ref("meshes"),
                "size": 64,
                "licence": "CC0-1.0 and CC-BY-3.0, see the package's copyright file",
                "origin": "sweethome3d-furniture 1.8",
            },
            "composer": {"kind": "turntable"},
            "epochs": 1 if small else 3,
        },
    }
    return config


def _photographs(root: ml_collections.FieldReference, small: bool) -> dict:
    """Photographs alone, with edges, and as the answers to seven kinds of damage."""
    source = {"kind": "image_folder", "root": root, "short_side": 256, **PHOTOGRAPHS}

    def pairs(role: str, annotator: str, annotation_first: bool) -> dict:
        return {
            "source": {**source, "name": f"photographs_{role}", "short_side": 128},
            "annotators": {role: {"kind": annotator}},
            "composer": {
                "kind": "pairs",
                "annotation": role,
                "annotation_first": annotation_first,
                "crop": 0.6,
            },
            "items": "photographs",
            "epochs": 1 if small else 12,
        }

    return {
        "photographs": {
            "source": {**source, "name": "photographs"},
            "composer": {"kind": "single_image", "crop": 0.3},
            "epochs": 1 if small else 150,
        },
        "photographs_edges": pairs("edges", "canny", annotation_first=False),
        **{
            f"photographs_{role}": pairs(role, annotator, annotation_first=True)
            for role, annotator in DAMAGE.items()
        },
    }


def _cutouts(
    root: ml_collections.FieldReference, backgrounds: ml_collections.FieldReference, small: bool
) -> dict:
    """Objects on photographs, with masks and with boxes; each with its own places and backgrounds."""
    return {
        f"cutouts_{role}": {
            "source": {
                "kind": "cutouts",
                "root": root,
                "backgrounds": backgrounds,
                "variants": 2 if small else 48,
                "size": 64,
                "seed": seed,
                "name": f"cutouts_{role}",
                "licence": "GPL-2.0, on photographs of a licence a file",
                "origin": "tuxpaint-stamps-default, on the folder given as --config.backgrounds",
            },
            "composer": {"kind": "pairs", "annotation": role},
            "items": "cutouts",
            "together": r"(.*)#\d+",
        }
        for seed, role in enumerate(("mask", "box"))
    }


def _walks(small: bool) -> dict:
    """Clips of Freedoom, alone and with depth; each clip is shown once."""

    def walk(name: str, composer: dict, n_frames: int) -> dict:
        return {
            "source": {
                "kind": "doom",
                "name": name,
                "episodes": 1 if small else 36,
                "n_frames": n_frames,
                "category": _video_category(composer["kind"] == "annotated_video"),
            },
            "composer": composer,
            # One set for both entries, in groups by map: a map is in the same split for both.
            "items": "doom",
            "together": r"([^/]+)/.*",
        }

    depth = {"kind": "annotated_video", "n_frames": 8, "annotation": "depth", "order": "either"}
    return {
        "walks": walk("walks", {"kind": "video", "strides": (1,)}, 16),
        "walks_depth": walk("walks_depth", {**depth, "strides": (1, 2)}, 16),
    }


def _bodies(small: bool) -> dict:
    """Simulated bodies alone, with depth, and with their parts; whole domains are held out."""

    def clips(role: str | None, episodes: int) -> dict:
        annotated = {"kind": "annotated_video", "n_frames": 8, "annotation": role}
        return {
            "source": {
                "kind": "dm_control",
                "name": f"bodies_{role}" if role else "bodies",
                "episodes": 1 if small else episodes,
                "n_frames": 8 if role else 16,
                "size": 128,
                "annotations": (role,) if role else (),
                "category": _video_category(bool(role)),
            },
            "composer": {**annotated, "order": "either"}
            if role
            else {"kind": "video", "strides": (1,)},
            "items": "dm_control",
            "together": r"([^/]+)/.*",
        }

    return {
        "bodies": clips(None, 60),
        "bodies_depth": clips("depth", 40),
        "bodies_parts": clips("segmentation", 40),
    }


def _video_category(annotated: bool) -> int:
    return int(Category.ANNOTATED_VIDEO if annotated else Category.UNLABELLED_VIDEO)
