"""Photographs with the annotations of a COCO json: boxes, poses, segmentation.

Shape legend: N boxes; H, W of the picture.
"""

import dataclasses
from typing import Any, Literal

import cv2
import numpy as np
from etils import epath
from jaxtyping import Float, Int32, UInt8

from data_pipelines.annotators.base import once_per_process
from data_pipelines.annotators.keypoints import draw_keypoints
from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.images import check_short_side, read_image, shrink
from data_pipelines.sources.masks import shrink_ids
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures import skeletons
from lvm_jax.pictures.boxes import draw_boxes
from lvm_jax.pictures.coco import Listed, corners, marked_keypoints, read_coco
from lvm_jax.pictures.listing import existing_folder
from lvm_jax.pictures.run_lengths import decode_run_lengths

Role = Literal["boxes", "keypoints", "segmentation"]
_FIELD = {"boxes": "bbox", "keypoints": "keypoints", "segmentation": "segmentation"}


@dataclasses.dataclass(frozen=True)
class CocoImages:
    """Images of a COCO json with their annotations drawn: `{"image": [x], "boxes": [b], ...}`.

    Keys are the images' file names. Items are the images with every requested kind of annotation. An item is bad if the
    json annotates the image without listing it, or lists it with another size.

    Attributes:
      images: folder of the photographs, below `root`.
      annotations: the json file, below `root`.
      roles: what to draw. `boxes`: outlines on the image, or filled boxes on black, in the categories' colours, smaller
        above larger; back by `boxes.boxes_from_drawing`. `keypoints`: OpenPose skeletons on black; back by
        `skeletons.keypoints_from_drawing`. `segmentation`: categories in colours, from polygons and run lengths,
        smaller above larger; back by `annotation_maps.rgb_to_ids`.
      boxes_on: what boxes are drawn on.
      n_ids: number of distinct category colours; COCO's ids go up to 90.
      short_side: larger images are shrunk to this before anything is drawn.
    """

    root: str
    images: str = "train2017"
    annotations: str = "annotations/instances_train2017.json"
    roles: tuple[Role, ...] = ("boxes",)
    boxes_on: Literal["image", "black"] = "image"
    n_ids: int = 91
    short_side: int | None = 512
    name: str = "coco"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self):
        if not self.roles:
            raise UserError("roles is empty: name boxes, keypoints or segmentation")
        check_short_side(self.short_side)
        maps.palette(self.n_ids)  # raises if there is no such palette

    def keys(self) -> list[str]:
        """File names of the annotated images; see `Source`."""
        fields = [_FIELD[role] for role in self.roles]
        found = sorted(
            name
            for name, image in self._index().items()
            if all(any(field in a for a in image.annotations) for field in fields)
        )
        if not found:
            raise UserError(
                f"{self.annotations} holds no image with {' and '.join(self.roles)}: ask for other roles"
            )
        return found

    def load(self, key: str) -> PictureItem:
        """The image and its drawings; see `Source`."""
        listed = self._index()[key]
        if not listed.width:
            raise BadItem(key, f"is not among the images of {self.annotations}")
        image = read_image(epath.Path(self.root) / self.images / key, key)
        height, width = image.shape[:2]
        if (height, width) != (listed.height, listed.width):
            raise BadItem(
                key,
                f"is {width}x{height} pixels, its annotations are of {listed.width}x{listed.height}",
            )
        if self.short_side is not None:
            image = shrink(image, self.short_side)
        item: PictureItem = {"image": [image]}
        for role in self.roles:
            draw = {"boxes": self._boxes, "keypoints": _keypoints, "segmentation": self._segments}
            mine = [a for a in listed.annotations if _FIELD[role] in a]
            try:
                item[role] = [draw[role](mine, image, listed)]
            except (ValueError, TypeError, KeyError, IndexError, cv2.error) as error:
                raise BadItem(key, f"has {role} that cannot be drawn ({error})") from error
        return item

    def _index(self) -> dict[str, Listed]:
        existing_folder(self.root, "images and annotations")
        path = epath.Path(self.root) / self.annotations
        if not path.is_file():
            raise UserError(f"{self.root} holds no {self.annotations}: give the json file below it")
        return _read_index(str(path), path.stat().mtime)

    def _boxes(self, annotations: list[dict], image: np.ndarray, listed: Listed) -> np.ndarray:
        """Leaves out crowds: they are regions, not objects."""
        single = [a for a in annotations if not a.get("iscrowd")]
        boxes = np.array([corners(a["bbox"]) for a in single], np.float64).reshape(-1, 4)
        large_first = np.argsort(-_areas(boxes), kind="stable")
        ids = np.array([a["category_id"] for a in single], np.int64)[large_first]
        # Drawn last, so on top: a small box inside a large one stays visible.
        boxes = boxes[large_first] * np.tile(_scale(image, listed), 2)
        size = image.shape[:2]
        if self.boxes_on == "black":
            return draw_boxes(boxes, ids, size, n_ids=self.n_ids)
        thickness = max(1, round(min(size) / 80))
        return draw_boxes(boxes, ids, size, image, n_ids=self.n_ids, thickness=thickness)

    def _segments(self, annotations: list[dict], image: np.ndarray, listed: Listed) -> np.ndarray:
        ids = np.zeros((listed.height, listed.width), np.int32)
        masks = [(_mask(a["segmentation"], listed), a["category_id"]) for a in annotations]
        # Large masks first, so that small ones stay on top.
        for mask, category in sorted(masks, key=lambda m: -int(m[0].sum())):
            ids[mask] = category
        return maps.ids_to_rgb(shrink_ids(ids, image.shape[:2]), self.n_ids)


@once_per_process
def _read_index(path: str, mtime: float) -> dict[str, Listed]:
    """File name -> what the json lists for it; `mtime` is there to reload a changed file."""
    del mtime
    return read_coco(path)[0]


def _scale(image: np.ndarray, listed: Listed) -> np.ndarray:
    return np.array([image.shape[1] / listed.width, image.shape[0] / listed.height])


def _areas(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _keypoints(
    annotations: list[dict], image: np.ndarray, listed: Listed
) -> UInt8[np.ndarray, "H W 3"]:
    marked = np.array([marked_keypoints(a["keypoints"]) for a in annotations]).reshape(-1, 17, 2)
    # COCO counts from the middle of a pixel, drawings from the picture's upper left corner.
    points = (marked + 0.5) * _scale(image, listed)
    joints = skeletons.openpose_from_coco(points)
    size = image.shape[:2]
    return draw_keypoints(joints, size, skeletons.OPENPOSE, max(2.0, min(size) / 50))


def _mask(segmentation: Any, listed: Listed) -> np.ndarray:
    """Bool (H, W), from polygons or run lengths."""
    if isinstance(segmentation, dict):
        mask = decode_run_lengths(segmentation["counts"], segmentation["size"])
        if mask.shape != (listed.height, listed.width):
            raise ValueError(
                f"a mask of {mask.shape} pixels in an image of {listed.height, listed.width}"
            )
        return mask
    filled: Int32[np.ndarray, "H W"] = np.zeros((listed.height, listed.width), np.int32)
    for polygon in segmentation:
        corners = np.round(np.array(polygon, np.float64).reshape(-1, 2)).astype(np.int32)
        cv2.fillPoly(filled, [corners], [1])
    return filled > 0
