"""Composers: how the pictures of one or several items become one visual sentence.

A composer is a frozen dataclass with two pure methods. `group` decides from the keys alone which items stand together;
`compose` picks and orders their values. All chance comes from the `np.random.Generator` of the call, so the same seed
gives the same sentence anywhere. The kinds of sentence are those of Bai et al., arXiv 2312.00785, section 3.

Items are what a source loads (`data_pipelines.items`), at any size; pictures are resized after they were composed.
"""

from data_pipelines.sentences.annotations import MultiAnnotation
from data_pipelines.sentences.base import Composer, Unfit
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
    "MultiAnnotation",
    "Pairs",
    "SingleImage",
    "Turntable",
    "Unfit",
    "Video",
]
