"""Composers: how the images of one or several items become one visual sentence.

A composer is a frozen dataclass with two pure methods. `plan` decides from their keys alone which items stand together;
`compose` picks and orders their images. All chance comes from the `np.random.Generator` of the call, so the same seed
gives the same sentence anywhere. The kinds of sentence are those of Bai et al., arXiv 2312.00785, section 3.

An item is what a source loads: role -> images, uint8 (height, width, 3), of any size; resizing comes later.
"""

from data_pipelines.sentences.annotations import MultiAnnotation
from data_pipelines.sentences.base import Composer, Item, Unfit
from data_pipelines.sentences.category import CategoryGroup
from data_pipelines.sentences.pairs import Pairs
from data_pipelines.sentences.single import SingleImage
from data_pipelines.sentences.turntable import Turntable
from data_pipelines.sentences.video import AnnotatedVideo, Video

# What a recipe's `composer.kind` can name.
COMPOSERS: dict[str, type] = {
    "single_image": SingleImage,
    "category": CategoryGroup,
    "pairs": Pairs,
    "multi_annotation": MultiAnnotation,
    "video": Video,
    "annotated_video": AnnotatedVideo,
    "turntable": Turntable,
}

__all__ = [
    "COMPOSERS",
    "AnnotatedVideo",
    "CategoryGroup",
    "Composer",
    "Item",
    "MultiAnnotation",
    "Pairs",
    "SingleImage",
    "Turntable",
    "Unfit",
    "Video",
]
