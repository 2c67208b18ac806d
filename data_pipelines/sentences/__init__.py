"""Composers: how the pictures of one or several items become one visual sentence.

A composer is a frozen dataclass with two pure methods. `group` sees only keys and decides which items share a sentence;
`compose` picks and orders their values. All randomness comes from the `np.random.Generator` of the call, so a seed
gives the same sentence anywhere. The sentences are those of Bai et al., arXiv 2312.00785, section 3.

Items are what a source loads (`data_pipelines.items`), at any size; pictures are resized after composing.
"""

from data_pipelines.sentences.annotations import MultiAnnotation
from data_pipelines.sentences.attribute import Attribute
from data_pipelines.sentences.base import Composer, Unfit
from data_pipelines.sentences.category import CategoryGroup
from data_pipelines.sentences.class_rules import ClassMask, Palette, Recolour
from data_pipelines.sentences.pairs import Pairs
from data_pipelines.sentences.single import SingleImage
from data_pipelines.sentences.transformation import Transformation
from data_pipelines.sentences.turntable import Turntable
from data_pipelines.sentences.video import AnnotatedVideo, Video

# The names that a recipe's `composer.kind` can take.
COMPOSERS: dict[str, type] = {
    "single_image": SingleImage,
    "category": CategoryGroup,
    "pairs": Pairs,
    "multi_annotation": MultiAnnotation,
    "video": Video,
    "annotated_video": AnnotatedVideo,
    "turntable": Turntable,
    "class_mask": ClassMask,
    "palette": Palette,
    "recolour": Recolour,
    "attribute": Attribute,
    "transformation": Transformation,
}

__all__ = [
    "COMPOSERS",
    "AnnotatedVideo",
    "Attribute",
    "CategoryGroup",
    "ClassMask",
    "Composer",
    "MultiAnnotation",
    "Pairs",
    "Palette",
    "Recolour",
    "SingleImage",
    "Transformation",
    "Turntable",
    "Unfit",
    "Video",
]
