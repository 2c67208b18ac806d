"""Pictures of a single object, with questions about its box or its keypoints.

A query and its support show the same class. K: keypoints.
"""

import abc
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import Picture
from lvm_jax.evaluation.lvm.readers.episodes import draw_support, load
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.pictures.joints import Joints, draw_joints

LARGEST_BOX = 0.5  # of the picture, as in the published detection subset
_MARGIN = 0.125  # around the box of an object with keypoints, as a fraction of its longer side


class Object(NamedTuple):
    """An object of a picture, in pixels of the file.

    Attributes:
      label: its class.
      box: (x0, y0, x1, y1), ends excluded.
      points_K2: (x, y) of its keypoints, NaN for unmarked ones; empty if a reader only needs boxes.
    """

    label: str
    box: tuple[float, float, float, float]
    points_K2: Float[np.ndarray, "K 2"] = np.empty((0, 2))


class SingleObjects(abc.ABC):
    """Episodes over pictures of a single object.

    Args:
      objects: file -> its object.
      nothing: the error message if there is no object.

    Raises:
      UserError: there is no object.
    """

    def __init__(self, objects: Mapping[epath.Path, Object], nothing: str) -> None:
        if not objects:
            raise UserError(nothing)
        self.objects = objects
        self._files = sorted(objects)

    def __len__(self) -> int:
        return len(self._files)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `lvm_jax.evaluation.lvm.readers.episodes.Episodes`."""
        query = self._files[index % len(self._files)]
        label = self.objects[query].label
        others = [f for f in self._files if self.objects[f].label == label and f != query]
        chosen = draw_support(others, shots, (seed, index), f"class {label}")
        support = [self._answered(file)[:2] for file in chosen]
        picture, answer, joints = self._answered(query)
        return Episode(support, picture, answer, f"{query.stem}/{label}", joints)

    @abc.abstractmethod
    def _answered(self, file: epath.Path) -> tuple[Picture, Picture, Joints | None]:
        """The picture, its answer, and the joints of the answer if the score compares those."""


class Boxes(SingleObjects):
    """Single object detection (Bar et al., arXiv 2209.00647): the answer is the box in white on black."""

    def __init__(self, objects: Mapping[epath.Path, Object], where: epath.Path) -> None:
        super().__init__(
            objects, f"{where} has no image of a single small object: check the data set"
        )

    def _answered(self, file: epath.Path) -> tuple[Picture, Picture, None]:
        picture = load(file)
        # From 0 on, because Python counts negative numbers from the other edge.
        x0, y0, x1, y1 = (max(0, round(value)) for value in self.objects[file].box)
        mask = np.zeros(picture.shape[:2], bool)
        mask[y0:y1, x0:x1] = True
        if not mask.any():
            raise UserError(
                f"the data set is damaged: {file} has no pixel in its box {self.objects[file].box}"
            )
        return picture, mask_to_rgb(mask), None


class Keypoints(SingleObjects):
    """Keypoints as discs on black; pictures are cropped to the object's box plus an eighth on each side."""

    def __init__(self, objects: Mapping[epath.Path, Object], where: epath.Path) -> None:
        super().__init__(
            objects, f"{where} has no picture of a single object with keypoints: check it"
        )

    def _answered(self, file: epath.Path) -> tuple[Picture, Picture, Joints]:
        found, picture = self.objects[file], load(file)
        x0, y0, x1, y1 = found.box
        longer = max(x1 - x0, y1 - y0)
        margin = _MARGIN * longer
        left, top = (max(0, round(v - margin)) for v in (x0, y0))
        bottom, right = (max(0, round(v + margin)) for v in (y1, x1))
        cut = picture[top:bottom, left:right]
        if not cut.size:
            raise UserError(f"the data set is damaged: {file} has a box outside it, {found.box}")
        joints = Joints(found.points_K2 - (left, top), longer)
        return cut, draw_joints(joints, *cut.shape[:2]), joints
