"""Photographs with the annotations of a COCO json: boxes, poses, segmentation.

Shape legend: N boxes; H, W of the picture.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
from etils import epath
from jaxtyping import Float, Float64, UInt8

from data_pipelines.annotators.base import once_per_process
from data_pipelines.annotators.keypoints import draw_keypoints
from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.coco_masks import mask_runs
from data_pipelines.sources.images import check_short_side, read_image, shrink
from data_pipelines.sources.masks import shrink_ids
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures import coco as coco_json
from lvm_jax.pictures import skeletons
from lvm_jax.pictures.boxes import draw_boxes
from lvm_jax.pictures.coco import Coco, Listed
from lvm_jax.pictures.listing import existing_folder
from lvm_jax.pictures.run_lengths import fill_runs

Role = Literal["boxes", "keypoints", "segmentation"]
_FIELD = {"boxes": "bbox", "keypoints": "keypoints", "segmentation": "segmentation"}
_FARTHEST = 2  # of the longer side: a joint may lie outside the picture, but not so far that its number overflows


@dataclasses.dataclass(frozen=True)
class CocoImages:
    """Images of a COCO json with their annotations drawn: `{"image": [x], "boxes": [b], ...}`.

    Keys are the images' file names. Items are the images with every requested kind of annotation; an image of crowds
    alone has no boxes and no keypoints. An item is bad if the json annotates the image without listing it, lists it
    with another size, or has an annotation that is not as the format says (`lvm_jax.pictures.coco`, `coco_masks`).

    Every category has a colour of its own: that of its id, if all ids are from 1 to n_ids - 1, else that of its place
    in the order of the ids (`lvm_jax.pictures.coco.colour_ids`).

    Attributes:
      images: folder of the photographs, below `root`.
      annotations: the json file, below `root`.
      roles: what to draw. `boxes`: outlines on the image, or filled boxes on black, in the categories' colours, smaller
        above larger; back by `boxes.boxes_from_drawing`. `keypoints`: skeletons on black, OpenPose's for people with
        COCO's 17 keypoints, else the category's own; back by `skeletons.keypoints_from_drawing`. `segmentation`:
        categories in colours, from polygons and run lengths, smaller above larger; back by
        `annotation_maps.rgb_to_ids`.
      boxes_on: what boxes are drawn on.
      n_ids: number of category colours, the background's included; COCO's ids go up to 90. More categories than that
        are an error.
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
        """File names of the annotated images; see `Source`.

        Raises:
          UserError: no such folder or file, no image with the roles, or more categories or keypoints than colours.
        """
        coco = _read_index(*self._file())
        if "keypoints" in self.roles:
            for category in coco.categories.values():
                coco_json.skeleton_of(category)  # raises if it cannot be drawn
        if {"boxes", "segmentation"} & set(self.roles):
            self._colours()  # raises if there are too few
        found = sorted(
            name
            for name, image in coco.images.items()
            if all(_of_role(role, image) for role in self.roles)
        )
        if not found:
            raise UserError(
                f"{self.annotations} holds no image with {' and '.join(self.roles)}: ask for other roles"
            )
        return found

    def load(self, key: str) -> PictureItem:
        """The image and its drawings; see `Source`."""
        coco = _read_index(*self._file())
        listed = coco.images[key]
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
            try:
                item[role] = [self._draw(role, image, listed, coco)]
            except UserError:  # of the whole file
                raise
            except ValueError as error:
                raise BadItem(key, f"has {role} that cannot be drawn ({error})") from error
        return item

    def _file(self) -> tuple[str, float]:
        """Path and time of the json."""
        existing_folder(self.root, "images and annotations")
        path = epath.Path(self.root) / self.annotations
        if not path.is_file():
            raise UserError(f"{self.root} holds no {self.annotations}: give the json file below it")
        return str(path), path.stat().mtime

    def _colours(self) -> dict[int, int]:
        """Category id -> id of its colour."""
        return _colour_ids(*self._file(), self.n_ids)

    def _draw(
        self, role: Role, image: UInt8[np.ndarray, "H W 3"], listed: Listed, coco: Coco
    ) -> UInt8[np.ndarray, "H W 3"]:
        annotations = _of_role(role, listed)
        match role:
            case "boxes":
                return self._boxes(annotations, image, listed)
            case "keypoints":
                return _keypoints(annotations, image, listed, coco.categories)
            case "segmentation":
                return self._segments(annotations, image, listed)

    def _boxes(
        self, annotations: list[dict], image: np.ndarray, listed: Listed
    ) -> UInt8[np.ndarray, "H W 3"]:
        boxes = np.array([coco_json.corners(a["bbox"]) for a in annotations], np.float64).reshape(
            -1, 4
        )
        for box in boxes:
            if (box[2:] < 0).any() or (box[:2] > (listed.width, listed.height)).any():
                raise ValueError(
                    f"bbox reaches from {box[:2].tolist()} to {box[2:].tolist()}, outside the image"
                )
        large_first = np.argsort(-_areas(boxes), kind="stable")
        colours = self._colours()
        ids = np.array([colours[coco_json.category_of(a)] for a in annotations], np.int64)[
            large_first
        ]
        # Drawn last, so on top: a small box inside a large one stays visible.
        boxes = boxes[large_first] * np.tile(_scale(image, listed), 2)
        size = image.shape[:2]
        if self.boxes_on == "black":
            return draw_boxes(boxes, ids, size, n_ids=self.n_ids)
        thickness = max(1, round(min(size) / 80))
        return draw_boxes(boxes, ids, size, image, n_ids=self.n_ids, thickness=thickness)

    def _segments(
        self, annotations: list[dict], image: np.ndarray, listed: Listed
    ) -> UInt8[np.ndarray, "H W 3"]:
        size = listed.height, listed.width
        colours = self._colours()
        ids = np.zeros(size, np.int32)
        # Run lengths until they are drawn: the masks of a crowded photograph would fill the memory.
        runs = [
            (mask_runs(a["segmentation"], size), colours[coco_json.category_of(a)])
            for a in annotations
        ]
        # Large masks first, so that small ones stay on top. Every second run is on.
        for lengths, category in sorted(runs, key=lambda m: -int(m[0][1::2].sum())):
            ids[fill_runs(lengths, size)] = category
        return maps.ids_to_rgb(shrink_ids(ids, image.shape[:2]), self.n_ids)


@once_per_process
def _read_index(path: str, mtime: float) -> Coco:
    """What the json lists; `mtime` is there to reload a changed file."""
    del mtime
    return coco_json.read_coco(path)


@once_per_process
def _colour_ids(path: str, mtime: float, n_ids: int) -> dict[int, int]:
    try:
        return coco_json.colour_ids(_read_index(path, mtime), n_ids)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _of_role(role: Role, image: Listed) -> list[dict[str, Any]]:
    """The annotations that a role draws. Crowds are regions, not objects: they have no box and no pose."""
    return [
        a
        for a in image.annotations
        if _FIELD[role] in a and (role == "segmentation" or not a.get("iscrowd"))
    ]


def _scale(image: np.ndarray, listed: Listed) -> Float64[np.ndarray, " 2"]:
    return np.array([image.shape[1] / listed.width, image.shape[0] / listed.height])


def _areas(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _keypoints(
    annotations: list[dict],
    image: np.ndarray,
    listed: Listed,
    categories: dict[int, coco_json.Category],
) -> UInt8[np.ndarray, "H W 3"]:
    ids = [coco_json.category_of(a) for a in annotations]
    shown = [categories.get(i, coco_json.Category(str(i))) for i in ids]
    marked = [coco_json.marked_keypoints(a["keypoints"], c) for a, c in zip(annotations, shown)]
    for points_K2 in marked:
        largest = np.nanmax(np.abs(points_K2), initial=0)
        if largest > _FARTHEST * max(listed.width, listed.height):
            raise ValueError(
                f"a keypoint is {largest:.3g} pixels from the corner, outside the image"
            )
    drawn = {coco_json.skeleton_of(category): category.name for category in shown}
    if len(drawn) > 1:
        raise ValueError(
            f"skeletons of {' and '.join(drawn.values())}, whose colours would be confused"
        )
    # COCO counts from the middle of a pixel, drawings from the picture's upper left corner.
    points = (np.array(marked) + 0.5) * _scale(image, listed)
    (skeleton,) = drawn
    joints = skeletons.openpose_from_coco(points) if skeleton is skeletons.OPENPOSE else points
    size = image.shape[:2]
    return draw_keypoints(joints, size, skeleton, max(2.0, min(size) / 50))
