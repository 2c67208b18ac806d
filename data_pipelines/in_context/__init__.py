"""Pools of pictures by class, for in-context pairs: objects of COCO and LVIS, regions of Visual Genome, drawn ones.

An item is one object of one picture: the picture, its class, and a mask or a caption with boxes. Keys read
`SIDE/PICTURE/OBJECT`. The side is `held_out` for pictures that training must not see, because they show a class that is
kept from it. PICTURE names the picture as all sources of the same photographs do, so that it has one split.
"""

from data_pipelines.in_context.about import About
from data_pipelines.in_context.coco_captions import CocoCaptions
from data_pipelines.in_context.coco_objects import CocoObjects
from data_pipelines.in_context.drawn_crowds import DrawnCrowds
from data_pipelines.in_context.drawn_objects import DrawnObjects
from data_pipelines.in_context.keys import NEVER_TRAIN, ONE_PICTURE
from data_pipelines.in_context.marked_tiles import MarkedTiles
from data_pipelines.in_context.regions import Regions

# The names that a recipe's `source.kind` can take beside those of `data_pipelines.sources`.
SOURCES: dict[str, type] = {
    "coco_objects": CocoObjects,
    "coco_captions": CocoCaptions,
    "regions": Regions,
    "drawn_objects": DrawnObjects,
    "drawn_crowds": DrawnCrowds,
    "marked_tiles": MarkedTiles,
}
# And its `composer.kind`, beside those of `data_pipelines.sentences`.
COMPOSERS: dict[str, type] = {"about": About}

__all__ = [
    "COMPOSERS",
    "NEVER_TRAIN",
    "ONE_PICTURE",
    "SOURCES",
    "About",
    "CocoCaptions",
    "CocoObjects",
    "DrawnCrowds",
    "DrawnObjects",
    "MarkedTiles",
    "Regions",
]
