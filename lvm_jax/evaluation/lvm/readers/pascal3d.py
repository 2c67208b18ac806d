"""PASCAL3D+: the anchors of single objects, such as the wheels of a car.

K: anchors.
"""

from typing import Any

import numpy as np
from etils import epath
from scipy.io import loadmat

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.readers.objects import Keypoints, Object
from lvm_jax.pictures.voc import read_names


class Pascal3D(Keypoints):
    """The anchors of a single object that is neither truncated nor occluded.

    Args:
      root: PASCAL3D+_release1.1.
      source: "imagenet" or "pascal".
      split: of Image_sets.

    Raises:
      UserError: there is no list of this source and split, or an annotation is damaged.
    """

    def __init__(self, root: epath.PathLike, source: str = "imagenet", split: str = "val") -> None:
        base = epath.Path(root)
        lists = files.named(base / "Image_sets", f"*_{source}_{split}.txt")
        if not lists:
            raise UserError(f"{base}/Image_sets has no *_{source}_{split}.txt: check the data set")
        suffix = "JPEG" if source == "imagenet" else "jpg"
        objects = {}
        for listing in lists:
            folder = listing.name.removesuffix(f"_{split}.txt")
            label = folder.removesuffix(f"_{source}")
            for name in read_names(listing):
                found = _only_object(base / "Annotations" / folder / f"{name}.mat", label)
                if found is not None:
                    objects[base / "Images" / folder / f"{name}.{suffix}"] = found
        super().__init__(objects, base)


def _only_object(file: epath.Path, label: str) -> Object | None:
    """The object of an annotation; None if there are several, or if it has another class or no visible anchor."""
    try:
        with file.open("rb") as opened:
            record = loadmat(opened, squeeze_me=True, struct_as_record=False)["record"]
        objects = np.atleast_1d(record.objects)
        return _anchored(objects[0], label) if len(objects) == 1 else None
    except Exception as error:  # SciPy's errors for a damaged file have no common base
        raise UserError(f"the data set is damaged: {file} ({error})") from error


def _anchored(item: Any, label: str) -> Object | None:
    # The file's field is named "class", a keyword in Python, so `item.class` does not parse.
    if getattr(item, "class") != label or item.truncated or item.occluded:
        return None
    anchors = item.anchors
    points = []
    for name in sorted(anchors._fieldnames):  # the same order in every picture of a class
        at = np.atleast_1d(getattr(anchors, name).location)
        points.append(at if len(at) == 2 else (np.nan, np.nan))  # an anchor out of sight is empty
    points_K2 = np.array(points, np.float64) - 1  # MATLAB counts from 1
    if np.isnan(points_K2).all():
        return None
    x0, y0, x1, y1 = np.asarray(item.bbox, np.float64)
    if not np.isfinite((x0, y0, x1, y1)).all():
        raise ValueError(f"bbox is {item.bbox}: it must be four finite numbers")
    return Object(label, (x0 - 1, y0 - 1, x1, y1), points_K2)
