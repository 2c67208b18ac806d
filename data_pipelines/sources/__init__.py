"""Sources of raw data: folders of images, videos and clips, annotated sets in usual formats, archives, simulators."""

from data_pipelines.sources.annotated import AnnotatedImages
from data_pipelines.sources.base import BadItem, Source
from data_pipelines.sources.coco import CocoImages
from data_pipelines.sources.control_suite import DmControlClips
from data_pipelines.sources.cutouts import Cutouts
from data_pipelines.sources.derived import Annotated, plain_source
from data_pipelines.sources.doom import DoomClips
from data_pipelines.sources.drawn import DrawnClips, DrawnScenes
from data_pipelines.sources.frames import FrameFolders
from data_pipelines.sources.images import ImageFolder
from data_pipelines.sources.meshes import MeshFolder
from data_pipelines.sources.mosaics import Mosaics
from data_pipelines.sources.paired import PairedClips, PairedFiles
from data_pipelines.sources.tfds import TfdsFolder
from data_pipelines.sources.videos import VideoFolder
from data_pipelines.sources.webdataset import WebDataset

# The names that a recipe's `source.kind` can take.
SOURCES: dict[str, type] = {
    "image_folder": ImageFolder,
    "annotated_images": AnnotatedImages,
    "video_folder": VideoFolder,
    "frame_folders": FrameFolders,
    "paired_files": PairedFiles,
    "paired_clips": PairedClips,
    "coco": CocoImages,
    "webdataset": WebDataset,
    "tfds": TfdsFolder,
    "meshes": MeshFolder,
    "cutouts": Cutouts,
    "drawn": DrawnScenes,
    "drawn_clips": DrawnClips,
    "mosaics": Mosaics,
    "doom": DoomClips,
    "dm_control": DmControlClips,
}

__all__ = [
    "SOURCES",
    "Annotated",
    "AnnotatedImages",
    "BadItem",
    "CocoImages",
    "Cutouts",
    "DmControlClips",
    "DoomClips",
    "DrawnClips",
    "DrawnScenes",
    "FrameFolders",
    "ImageFolder",
    "MeshFolder",
    "Mosaics",
    "PairedClips",
    "PairedFiles",
    "Source",
    "TfdsFolder",
    "VideoFolder",
    "WebDataset",
    "plain_source",
]
