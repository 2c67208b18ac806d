"""Keypoints of single objects in public data sets, as episodes of the task "joints".

| reader | layout below the root |
|---|---|
| `CocoKeypoints` | annotations/person_keypoints_SPLIT.json, SPLIT/ |
| `Pascal3D` | Images/CLASS_SOURCE/NAME.JPEG, Annotations/CLASS_SOURCE/NAME.mat, Image_sets/CLASS_SOURCE_SPLIT.txt |

A picture is cut to the object's box and an eighth of it on each side. A question and its support are of one class.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.readers import Picture, draw_support, load, read_list
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.coco import read_coco
from lvm_jax.pictures.joints import Joints, draw_joints

_MARGIN = 0.125  # of the box, on each side
_LEAST_JOINTS = 4  # of an object in COCO; fewer say little of a pose


class Marked(NamedTuple):
    """An object: its box (x0, y0, x1, y1) and keypoints (K, 2) in pixels of its file, NaN where not marked."""

    label: str
    box: tuple[float, ...]
    points_K2: np.ndarray


class _Objects:
    """Episodes of the objects of a data set, one a file."""

    def __init__(self, objects: Mapping[epath.Path, Marked], where: str) -> None:
        if not objects:
            raise UserError(f"{where} has no picture of a single object with keypoints: check it")
        self._objects, self._files = objects, sorted(objects)

    def __len__(self) -> int:
        return len(self._files)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `readers.Episodes`."""
        query = self._files[index % len(self._files)]
        label = self._objects[query].label
        others = [f for f in self._files if self._objects[f].label == label and f != query]
        chosen = draw_support(others, shots, (seed, index), f"class {label}")
        pairs = [self._pair(file)[:2] for file in chosen]
        picture, drawing, joints = self._pair(query)
        return Episode(pairs, picture, drawing, f"{query.stem}/{label}", joints)

    def _pair(self, file: epath.Path) -> tuple[Picture, Picture, Joints]:
        marked, picture = self._objects[file], load(file)
        x0, y0, x1, y1 = marked.box
        margin = _MARGIN * max(x1 - x0, y1 - y0)
        left, top = (max(0, round(v - margin)) for v in (x0, y0))
        cut = picture[top : round(y1 + margin), left : round(x1 + margin)]
        if not cut.size:
            raise UserError(f"the data set is damaged: {file} has a box outside it, {marked.box}")
        joints = Joints(marked.points_K2 - (left, top), max(x1 - x0, y1 - y0))
        return cut, draw_joints(joints, *cut.shape[:2]), joints


class CocoKeypoints(_Objects):
    """The joints of pictures of a single person, at least four of them marked; `split` is such as val2017."""

    def __init__(self, root: epath.PathLike, split: str = "val2017") -> None:
        base = epath.Path(root)
        listing = base / "annotations" / f"person_keypoints_{split}.json"
        if not listing.exists():
            raise UserError(
                f"{listing} does not exist: point at the folder that holds annotations/"
            )
        images, names = read_coco(listing)
        objects = {}
        for name, image in images.items():
            found = [a for a in image.annotations if not a.get("iscrowd")]
            if len(found) != 1 or len(image.annotations) != 1 or "keypoints" not in found[0]:
                continue
            x_y_v = np.array(found[0]["keypoints"], np.float64).reshape(-1, 3)
            if np.count_nonzero(x_y_v[:, 2]) < _LEAST_JOINTS:
                continue
            points_K2 = np.where(x_y_v[:, 2:] > 0, x_y_v[:, :2], np.nan)
            x, y, width, height = found[0]["bbox"]
            label = names[found[0]["category_id"]]
            objects[base / split / name] = Marked(label, (x, y, x + width, y + height), points_K2)
        super().__init__(objects, str(base))


class Pascal3D(_Objects):
    """The anchors of pictures of a single object that is neither cut off nor hidden.

    Args:
      root: PASCAL3D+_release1.1.
      source: "imagenet" or "pascal".
      split: of Image_sets.
    """

    def __init__(self, root: epath.PathLike, source: str = "imagenet", split: str = "val") -> None:
        base = epath.Path(root)
        lists = sorted((base / "Image_sets").glob(f"*_{source}_{split}.txt"))
        if not lists:
            raise UserError(f"{base}/Image_sets has no *_{source}_{split}.txt: check the data set")
        objects = {}
        for listing in lists:
            folder = listing.name.removesuffix(f"_{split}.txt")
            label = folder.removesuffix(f"_{source}")
            for name in read_list(listing):
                found = _only_object(base / "Annotations" / folder / f"{name}.mat", label)
                if found is not None:
                    suffix = "JPEG" if source == "imagenet" else "jpg"
                    objects[base / "Images" / folder / f"{name}.{suffix}"] = found
        super().__init__(objects, str(base))


def _only_object(file: epath.Path, label: str) -> Marked | None:
    """The object of an annotation; None where there are several, or none of that class with an anchor in sight."""
    try:
        with file.open("rb") as opened:
            record = loadmat(opened, squeeze_me=True, struct_as_record=False)["record"]
        objects = np.atleast_1d(record.objects)
        return _marked(objects[0], label) if len(objects) == 1 else None
    except (OSError, ValueError, KeyError, AttributeError, MatReadError) as error:
        raise UserError(f"the data set is damaged: {file} ({error})") from error


def _marked(item: Any, label: str) -> Marked | None:
    if getattr(item, "class") != label or item.truncated or item.occluded:
        return None
    anchors = item.anchors
    points = []
    for name in sorted(anchors._fieldnames):  # the same order in every picture of a class
        at = np.atleast_1d(getattr(anchors, name).location)
        points.append(at if len(at) == 2 else (np.nan, np.nan))
    points_K2 = np.array(points, np.float64) - 1  # MATLAB counts from 1
    if np.isnan(points_K2).all():
        return None
    x0, y0, x1, y1 = np.asarray(item.bbox, np.float64)
    return Marked(label, (x0 - 1, y0 - 1, x1, y1), points_K2)
