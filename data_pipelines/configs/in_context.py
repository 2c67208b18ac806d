r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/in_context.py --tokenizer=MODEL --output=SHARDS

Data that teach a model to use its pairs, at 64 pixels: scenes drawn on the fly, each shown once, so that none is learnt
by heart. `SHARES` says how the sentences are divided. Almost half follow a rule that only the pairs tell.

  --config=...in_context.py:sentences=40000   training and validation together; 20,000 by default, 320,000 images
  --config.images=PHOTOGRAPHS                 adds colorization, inpainting, deblurring and transformations of
                                              photographs, `photographs=8` passes over the folder each, and six times
                                              as many of photographs alone
  --config.cutouts=OBJECTS                    with backgrounds: adds masks and boxes of objects with alpha, `cutouts=24`
                                              composites of each object and task
  --config.backgrounds=PHOTOGRAPHS            half of the scenes stand on pieces of these; keep them apart from images
  --config=...in_context.py:part=1            other scenes, mosaics and composites, of the same photographs and objects:
                                              to train longer; what part 0 holds out of these is held out too
  --config=...in_context.py:runlocal          400 sentences
"""

import ml_collections

from lvm_jax.config import parse_arg
from lvm_jax.data.sentences.visual_sentence import Category

# Shares of the sentences, by entry. Those of photographs come on top: they follow from the size of their folder.
SHARES = {
    # Mosaics: what their tiles become can only be looked up in the pairs.
    "mosaics": 0.08,
    "mosaics_halves": 0.05,
    "mosaics_transformation": 0.04,
    # The same with scenes.
    "colour_mask": 0.05,
    "class_mask": 0.06,
    "palette": 0.05,
    "recolour": 0.05,
    "attribute": 0.04,
    "transformation": 0.03,
    # Annotations, weighted up: the paper's corpus has 7% of them, and small models never get to see enough.
    "segmentation": 0.08,
    "depth": 0.06,
    "normals": 0.05,
    "edges": 0.05,
    "boxes": 0.04,
    "keypoints": 0.03,
    # Restorations of drawn scenes.
    "colorization": 0.04,
    "inpainting": 0.03,
    "deblurring": 0.03,
    # What comes next.
    "clips": 0.04,
    "clips_segmentation": 0.02,
    "turns": 0.02,
    # Masks of some kinds of tiles, which lines cut as edges cut things: the step from mosaics to masks of scenes.
    "mosaics_mask": 0.06,
}
ANNOTATIONS = ("segmentation", "depth", "normals", "edges", "boxes", "keypoints")
RESTORATIONS = {  # entry -> (role of the damaged picture, annotator)
    "colorization": ("grey", {"kind": "grey"}),
    "inpainting": ("masked", {"kind": "holes"}),
    # Less blur leaves a picture nearer to the truth than 64 codes can say it (about 26 dB): no answer could be better.
    "deblurring": ("blurred", {"kind": "blur", "radius": (0.03, 0.07)}),
}
SAME_SET = r"(\d+)/.*"  # what mosaics with the same tiles have in common in their keys
# What drawn scenes with a class, or with a colour, in common have in common in their keys.
SAME_KIND, SAME_HUE = r"([a-z]+)-.*", r"[a-z]+-([a-z]+)/.*"
_ALONE = 6  # times as many passes
_PART = 1000  # between the seeds of two parts; more than there are entries


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe; `sentences` in `arg` scales it, `runlocal` makes it tiny."""
    args = parse_arg(arg, sentences=20_000, photographs=8, cutouts=24, part=0, runlocal=False)
    small = args["runlocal"]
    sentences = 400 if small else args["sentences"]
    config = ml_collections.ConfigDict()
    config.name = "in_context"
    config.version = "1.0.0"
    config.images = ""
    config.backgrounds = ""
    config.cutouts = ""
    config.images_licence = "unknown"  # goes into the manifest and onto a model's card
    config.cutouts_licence = "unknown"  # of the objects and their backgrounds
    config.image_size = 64
    config.encoding = "vqgan"  # how pictures become records, see `build.encoding`
    config.resize = "center"
    config.max_images = 4 if small else 16
    config.train_shards = 2 if small else 32
    config.validation_shards = 1
    config.validation_fraction = 0.3 if small else 0.04
    config.seed = args["part"]
    config.max_bad_items = 100
    backgrounds, size = config.get_ref("backgrounds"), config.get_ref("image_size")
    config.entries = {
        **_mosaics(size, sentences, small),
        **_drawn(backgrounds, size, sentences, small),
        **_photographs(config, 1 if small else args["photographs"], small),
        **_cutouts(config, 2 if small else args["cutouts"], small),
    }
    for entry in config.entries.values():
        if "seed" in entry.source:
            entry.source.seed += _PART * args["part"]
    return config


def _mosaics(size: ml_collections.FieldReference, sentences: int, small: bool) -> dict:
    """Entries of mosaics: a colour of its own for each kind of tile, one of two colours, all moved, or some marked."""
    n_pairs = 2 if small else 8
    rules = {  # entry -> what else its source is told, its composer
        "mosaics": ({}, {"kind": "palette", "class_of": SAME_SET}),
        "mosaics_halves": ({}, {"kind": "palette", "class_of": SAME_SET, "colours": 2}),
        "mosaics_transformation": ({}, {"kind": "transformation"}),
        "mosaics_mask": (
            {"cut": True, "kinds": (3, 8)},
            {"kind": "class_mask", "class_of": SAME_SET, "several": True},
        ),
    }
    return {
        name: {
            "source": {
                "kind": "mosaics",
                "sets": _count(name, sentences, 1),
                "pictures": n_pairs,
                "size": size,
                "name": name,
                "seed": seed,
                **tiles,
            },
            "composer": {"n_pairs": n_pairs, **composer},
            "together": SAME_SET,
        }
        for seed, (name, (tiles, composer)) in enumerate(rules.items())
    }


def _drawn(
    backgrounds: ml_collections.FieldReference,
    size: ml_collections.FieldReference,
    sentences: int,
    small: bool,
) -> dict:
    """Entries of drawn scenes and clips, each with scenes of its own."""
    n_pairs = 2 if small else 8

    def pairs(
        name: str, composer: dict, roles: tuple[str, ...], annotators: dict | None = None
    ) -> dict:
        items = composer.get("pool", n_pairs)
        return {
            "source": {
                "kind": "drawn",
                "scenes": _count(name, sentences, items),
                "roles": roles,
                **_common(name, backgrounds, size),
            },
            "annotators": annotators or {},
            "composer": {"n_pairs": n_pairs, **composer},
        }

    attribute = {
        "kind": "attribute",
        "depth": "depth",
        "class_of": SAME_HUE,
        "pool": n_pairs + max(1, n_pairs // 4),
    }
    rules = {
        "class_mask": ({"kind": "class_mask", "class_of": SAME_KIND}, ("segmentation",)),
        "palette": ({"kind": "palette"}, ("segmentation",)),
        "recolour": ({"kind": "recolour", "class_of": SAME_KIND}, ("segmentation",)),
        "attribute": (attribute, ("instances", "depth")),
        "colour_mask": (
            {
                "kind": "attribute",
                "aspects": ("colour",),
                "class_of": SAME_HUE,
                "pool": attribute["pool"],
            },
            ("instances",),
        ),
        "transformation": ({"kind": "transformation"}, ()),
    }
    return {
        **{name: pairs(name, composer, roles) for name, (composer, roles) in rules.items()},
        **{
            role: pairs(role, {"kind": "pairs", "annotation": role}, (role,))
            for role in ANNOTATIONS
        },
        **{
            name: pairs(
                name,
                {"kind": "pairs", "annotation": role, "annotation_first": True},
                (),
                {role: annotator},
            )
            for name, (role, annotator) in RESTORATIONS.items()
        },
        **_clips(backgrounds, size, sentences, small),
    }


def _clips(
    backgrounds: ml_collections.FieldReference,
    size: ml_collections.FieldReference,
    sentences: int,
    small: bool,
) -> dict:
    n_frames = 4 if small else 16
    marked = {
        "kind": "annotated_video",
        "n_frames": n_frames // 2,
        "annotation": "segmentation",
        "order": "either",
    }
    kinds = {
        "clips": (
            {"n_frames": n_frames},
            {"kind": "video", "strides": (1,)},
            int(Category.UNLABELLED_VIDEO),
        ),
        "clips_segmentation": (
            {"n_frames": n_frames // 2, "roles": ("segmentation",)},
            marked,
            int(Category.ANNOTATED_VIDEO),
        ),
        # Once around in 24 steps; a sentence shows 16 of them.
        "turns": (
            {"n_frames": 24, "motion": "turn"},
            {"kind": "turntable"},
            int(Category.OBJECT_3D),
        ),
    }
    lengths = {"video": {"n_frames": n_frames}, "turntable": {"n_views": n_frames}}
    return {
        name: {
            "source": {
                "kind": "drawn_clips",
                "clips": _count(name, sentences, 1),
                "category": category,
                **source,
                **_common(name, backgrounds, size),
            },
            "composer": {**composer, **lengths.get(composer["kind"], {})},
        }
        for name, (source, composer, category) in kinds.items()
    }


def _cutouts(config: ml_collections.ConfigDict, variants: int, small: bool) -> dict:
    """Masks and boxes of real objects on photographs; whole objects are held out."""
    return {
        f"cutouts_{role}": {
            "source": {
                "kind": "cutouts",
                "name": f"cutouts_{role}",
                "root": config.get_ref("cutouts"),
                "backgrounds": config.get_ref("backgrounds"),
                "variants": variants,
                "size": config.get_ref("image_size"),
                "seed": seed,
                "licence": config.get_ref("cutouts_licence"),
                "origin": "the folders given as --config.cutouts and --config.backgrounds",
            },
            "composer": {"kind": "pairs", "annotation": role, "n_pairs": 2 if small else 8},
            "items": "cutouts",
            "together": r"(.*)#\d+",
        }
        for seed, role in enumerate(("mask", "box"))
    }


def _photographs(config: ml_collections.ConfigDict, passes: int, small: bool) -> dict:
    """The same tasks on photographs, and photographs alone, whose sentences are one picture long."""
    n_pairs = 2 if small else 8

    def entry(name: str, composer: dict, annotators: dict | None = None) -> dict:
        return {
            "source": {
                "kind": "image_folder",
                "root": config.get_ref("images"),
                "short_side": 128,
                "name": f"photographs_{name}",
                "licence": config.get_ref("images_licence"),
                "origin": "the folder given as --config.images",
            },
            "annotators": annotators or {},
            "composer": composer,
            "items": "photographs",
            "epochs": _ALONE * passes if name == "alone" else passes,
        }

    return {
        "photographs": entry("alone", {"kind": "single_image", "crop": 0.3}),
        "photographs_transformation": entry(
            "transformation", {"kind": "transformation", "n_pairs": n_pairs, "crop": 0.6}
        ),
        **{
            f"photographs_{name}": entry(
                name,
                {
                    "kind": "pairs",
                    "annotation": role,
                    "annotation_first": True,
                    "n_pairs": n_pairs,
                    "crop": 0.6,
                },
                {role: annotator},
            )
            for name, (role, annotator) in RESTORATIONS.items()
        },
    }


def _count(name: str, sentences: int, items: int) -> int:
    """Items for an entry's share of the sentences."""
    return max(1, round(SHARES[name] * sentences)) * items


def _common(
    name: str, backgrounds: ml_collections.FieldReference, size: ml_collections.FieldReference
) -> dict:
    # A seed for each entry: it shows scenes that no other shows.
    return {
        "name": f"drawn_{name}",
        "seed": list(SHARES).index(name),
        "size": size,
        "backgrounds": backgrounds,
    }
