"""Sources of raw data: folders of images, videos, clips and annotated images."""

from data_pipelines.sources.annotated import AnnotatedImages
from data_pipelines.sources.base import BadItem, Item, Source
from data_pipelines.sources.derived import Annotated
from data_pipelines.sources.frames import FrameFolders
from data_pipelines.sources.images import ImageFolder
from data_pipelines.sources.videos import VideoFolder

# What a recipe's `source.kind` can name.
SOURCES: dict[str, type] = {
    "image_folder": ImageFolder,
    "annotated_images": AnnotatedImages,
    "video_folder": VideoFolder,
    "frame_folders": FrameFolders,
}

__all__ = [
    "SOURCES",
    "Annotated",
    "AnnotatedImages",
    "BadItem",
    "FrameFolders",
    "ImageFolder",
    "Item",
    "Source",
    "VideoFolder",
]
