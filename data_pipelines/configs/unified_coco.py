r"""python -m data_pipelines.build_uvd --config=data_pipelines/configs/unified_coco.py \
    --config.root=COCO --config.images=VG --tokenizer=MODEL --output=W/pools

The pools of "Towards More Unified In-context Visual Understanding" (arXiv 2312.02520, section 4.1): masks of COCO's 80
classes for segmentation, region descriptions of Visual Genome for captioning, and classes of LVIS and Visual Genome
that are not COCO's, for classes that training has not seen. The paper's sizes: about 350,000 masks, 460,000 regions.

    COCO/  train2017/ val2017/ annotations/{instances,captions}_{train,val}2017.json
           annotations/lvis_v1_val.json coco_to_synset.json        (the table is in lvis-api/data)
    VG/    VG_100K/ VG_100K_2/ image_data.json region_descriptions.json objects.json coco_to_synset.json

A folder that is not given leaves its entries out. All three sets share photographs: a photograph is in one split,
whichever names it. `--config=...unified_coco.py:captions` adds COCO's captions of whole photographs.
"""

import ml_collections

from data_pipelines.in_context import NEVER_TRAIN, ONE_PICTURE
from lvm_jax.config import parse_arg

TABLE = "coco_to_synset.json"
# "person" is a rare word in descriptions; what is meant is mostly annotated as one of these.
ALIASES = ("man.n.01=person", "woman.n.01=person", "male_child.n.01=person")
COCO = "Flickr's terms for the photographs, CC-BY-4.0 for the annotations"
ALL = ".*"


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The recipe."""
    args = parse_arg(arg, captions=False, size=256)
    config = ml_collections.ConfigDict()
    config.name = "unified_coco"
    config.version = "1.0.0"
    config.root = ""  # of COCO and LVIS
    config.images = ""  # of Visual Genome
    config.encoding = "pool"
    config.image_size = args["size"]  # the tokenizer's; the paper's ablations have 128
    config.max_images = 2
    config.train_shards = 64
    config.validation_shards = 4
    config.validation_fraction = 0.005
    config.seed = 0
    config.max_bad_items = 1000  # Visual Genome has boxes outside their photographs
    coco, genome = config.get_ref("root"), config.get_ref("images")
    config.entries = {
        **_coco_entries(coco),
        **_genome_entries(genome),
        **(_caption_entries(coco) if args["captions"] else {}),
    }
    return config


def _entry(source: dict, scale: tuple[float, ...], never_train: str = NEVER_TRAIN) -> dict:
    return {
        "source": source,
        "composer": {"kind": "about", "scale": scale},
        # One name for all: so their photographs are held out together.
        "items": "coco",
        "together": ONE_PICTURE,
        "never_train": never_train,
    }


def _coco_entries(root: ml_collections.FieldReference) -> dict:
    def objects(name: str, split: str, file: str, **more: object) -> dict:
        return {
            "kind": "coco_objects",
            "root": root,
            "name": name,
            "images": split,
            "annotations": f"annotations/{file}.json",
            "licence": COCO,
            "origin": "COCO 2017",
            **more,
        }

    # The object takes a quarter to the whole of the crop's longer side: the paper's "large scale, diverse sizes".
    scale = (0.25, 1.0)
    lvis = objects("lvis", ".", "lvis_v1_val", synsets=TABLE, classes="others", origin="LVIS v1")
    return {
        "train": _entry(objects("coco_train", "train2017", "instances_train2017"), scale),
        "val": _entry(objects("coco_val", "val2017", "instances_val2017"), scale, ALL),
        # LVIS annotates photographs of both folders of COCO: those of val2017 are in validation anyway.
        "lvis": _entry({**lvis, "match": "val2017/.*"}, scale),
    }


def _genome_entries(root: ml_collections.FieldReference) -> dict:
    genome = {"kind": "regions", "root": root, "synsets": TABLE, "licence": "CC-BY-4.0"}
    # Every hundredth photograph, for classes that are not COCO's: training does not see it.
    unseen = {"classes": "others", "match": r".*/\d*77\.jpg", "fewest": 20}
    return {
        "regions": _entry({**genome, "name": "genome", "aliases": ALIASES}, (0.25, 1.0)),
        "unseen_regions": _entry({**genome, "name": "genome_unseen", **unseen}, (0.25, 1.0)),
    }


def _caption_entries(root: ml_collections.FieldReference) -> dict:
    def captions(split: str) -> dict:
        return {
            "kind": "coco_captions",
            "root": root,
            "name": f"coco_captions_{split}",
            "images": f"{split}2017",
            "annotations": f"annotations/instances_{split}2017.json",
            "captions": f"annotations/captions_{split}2017.json",
            "licence": COCO,
            "origin": "COCO 2017",
        }

    # A caption speaks of the whole photograph, so it is not cut.
    return {
        "captions_train": _entry(captions("train"), ()),
        "captions_val": _entry(captions("val"), (), ALL),
    }
