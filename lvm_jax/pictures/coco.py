"""COCO's JSON: what it says of each image, and its boxes, keypoints and categories as numbers.

| the format allows | we |
|---|---|
| `images`, `annotations`, `categories`, and others such as `info`, `licenses` | read the three, pass over the rest |
| an image's `file_name`; LVIS has only `coco_url` | read it; take the last two parts, such as train2017/1.jpg |
| an id or a file name twice | refuse the file: annotations would go to the wrong image |
| `category_id` of any whole number | read; `colour_ids` gives each a place in a palette |
| `bbox` as x, y, width, height | read; refuse numbers that are not finite and negative sizes |
| `segmentation` as polygons, or as run lengths, compressed or not | see `data_pipelines.sources.coco_masks` |
| `keypoints` as x, y, visibility of 0, 1 or 2, as many as the category's | read; refuse another number of them |
| `iscrowd` | no object: no box, no pose; its run lengths are part of a segmentation |
| `area`, `caption`, `synset`, `not_exhaustive_category_ids` (captions, LVIS) | keep them |
| `null`, an empty list, keypoints that are all zero | absent |

Legend: K keypoints of an object, 2 the (x, y) in pixels.
"""

import dataclasses
import json
import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float64

from lvm_jax.errors import UserError
from lvm_jax.pictures import skeletons

FIELDS = ("category_id", "iscrowd", "bbox", "keypoints", "segmentation", "area", "caption")


@dataclasses.dataclass(frozen=True)
class Listed:
    """What the JSON says of an image.

    Attributes:
      width, height: in pixels; 0 if annotations refer to an image that the JSON does not list.
      annotations: for each object, the `FIELDS` that the JSON has, unchecked: `category_of`, `corners` and
        `marked_keypoints` read them.
      incomplete: ids of categories of which not all objects are annotated (LVIS).
    """

    width: int
    height: int
    annotations: list[dict[str, Any]]
    incomplete: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Category:
    """A category of objects.

    Attributes:
      name: for people.
      keypoints: the names of its keypoints, in their order; empty if the JSON names none.
      skeleton: pairs of keypoints that a line joins, counted from 1, as in the JSON; unchecked.
      synset: of WordNet, such as "apple.n.01"; "" if the JSON gives none, as only LVIS does.
    """

    name: str
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[Any, ...] = ()
    synset: str = ""


@dataclasses.dataclass(frozen=True)
class Coco:
    """A file's images, by file name, and categories, by id."""

    images: dict[str, Listed]
    categories: dict[int, Category]


def read_coco(path: epath.PathLike) -> Coco:
    """Reads a file.

    Annotations of an unlisted image go under the name `image_id N`.

    Raises:
      UserError: the file is not a COCO JSON, or has an id or a file name twice.
    """
    try:
        content = json.loads(epath.Path(path).read_bytes())
        categories = _categories(_list(content, "categories", required=False))
        named = _images(_list(content, "images"))
        images = dict(named.values())
        if len(images) < len(named):
            raise ValueError(
                f"it lists a file name twice, {_repeated(n for n, _ in named.values())}"
            )
        for annotation in _list(content, "annotations"):
            image_id = _field(annotation, "image_id", "an annotation")
            name, listed = named.get(image_id) or (f"image_id {image_id}", Listed(0, 0, []))
            images.setdefault(name, listed).annotations.append(_present(annotation))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no COCO json ({error}): it needs images and annotations, each id and file name once"
        ) from error
    return Coco(images, categories)


def category_of(annotation: Mapping[str, Any]) -> int:
    """The id of an annotation's category.

    Raises:
      ValueError: it has none, or it is no whole number.
    """
    return _whole(_field(annotation, "category_id", "an annotation"), "category_id")


def colour_ids(coco: Coco, n_ids: int) -> dict[int, int]:
    """Category id -> its place among `n_ids` colours, from 1 on: 0 is the background.

    Ids from 1 to n_ids - 1 are the places. If the file has any other id, such as 0, its categories are numbered 1, 2,
    ... in the order of their ids. The files of one data set agree if they list the same `categories`.

    Raises:
      UserError: there are more categories than colours.
    """
    found = set(coco.categories)
    for image in coco.images.values():
        found |= {a["category_id"] for a in image.annotations if _is_whole(a.get("category_id"))}
    if len(found) >= n_ids:
        raise UserError(
            f"the json has {len(found)} categories and n_ids is {n_ids}, which is {n_ids - 1} colours beside the "
            "background: raise n_ids, to 256 at most, or leave categories out of the json"
        )
    if all(0 < i < n_ids for i in found):
        return {int(i): int(i) for i in found}
    return {int(i): place for place, i in enumerate(sorted(found), 1)}


def corners(bbox: Any) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) of COCO's (x, y, width, height), in pixels.

    Raises:
      ValueError: it is not four finite numbers, or a size is negative.
    """
    numbers = finite_numbers(bbox, "bbox").tolist()
    if len(numbers) == 4:
        x, y, width, height = numbers
        found = x, y, x + width, y + height
        if width >= 0 and height >= 0 and all(map(math.isfinite, found)):
            return found
    raise ValueError(f"bbox is {reprlib.repr(bbox)}: it must be x, y, width >= 0, height >= 0")


def marked_keypoints(keypoints: Any, category: Category) -> Float64[np.ndarray, "K 2"]:
    """(x, y) from COCO's flat list of x, y, visibility; NaN where the visibility is 0, "not marked".

    Raises:
      ValueError: it is not three finite numbers for each keypoint of the category (of COCO's 17, if it names none), or
        a visibility is not 0, 1 or 2.
    """
    numbers = finite_numbers(keypoints, "keypoints")
    kinds = len(category.keypoints) or len(skeletons.COCO_KEYPOINTS)
    if len(numbers) != 3 * kinds:
        names = "lists" if category.keypoints else "lists no keypoints, so it should have COCO's"
        raise ValueError(
            f"keypoints has {len(numbers)} numbers, but category {category.name!r} {names} {kinds}: "
            f"it must be {3 * kinds}, an x, y and visibility for each"
        )
    x_y_v = numbers.reshape(-1, 3)
    if not np.isin(x_y_v[:, 2], (0, 1, 2)).all():
        raise ValueError(
            "keypoints has a visibility other than 0 (not marked), 1 (hidden) and 2 (visible)"
        )
    return np.where(x_y_v[:, 2:] > 0, x_y_v[:, :2], np.nan)


def skeleton_of(category: Category) -> skeletons.Skeleton:
    """OpenPose's for people with COCO's 17 keypoints, or for a category that names none; else the category's own.

    Raises:
      UserError: its `skeleton` is not pairs of its keypoints, or they are too many to tell apart.
    """
    names = [name.lower().replace(" ", "_").replace("-", "_") for name in category.keypoints]
    if not names or tuple(names) == skeletons.COCO_KEYPOINTS:
        return skeletons.OPENPOSE
    limbs = []
    for pair in category.skeleton:
        both = isinstance(pair, list) and len(pair) == 2 and all(map(_is_whole, pair))
        if not both or not all(1 <= end <= len(names) for end in pair):
            raise UserError(
                f"category {category.name!r} has {reprlib.repr(pair)} in its skeleton: it must be pairs of its "
                f"{len(names)} keypoints, counted from 1"
            )
        limbs.append((int(pair[0]) - 1, int(pair[1]) - 1))
    return skeletons.of_limbs(len(names), tuple(limbs))


def finite_numbers(value: Any, what: str) -> Float64[np.ndarray, " N"]:
    """A JSON list of numbers as an array.

    Raises:
      ValueError: it is no list, or holds anything but finite numbers.
    """
    # By type: NumPy would read "1" and true as numbers. And NaN is one to json.
    if isinstance(value, list) and all(type(number) in (int, float) for number in value):
        try:
            numbers = np.array(value, np.float64)
        except OverflowError:
            numbers = np.array([np.inf])
        if np.isfinite(numbers).all():
            return numbers
    raise ValueError(f"{what} is {reprlib.repr(value)}: it must be a list of finite numbers")


def _images(entries: list[Any]) -> dict[Any, tuple[str, Listed]]:
    """Image id -> its file name and what is listed of it."""
    found = {}
    for entry in entries:
        image_id = _field(entry, "id", "an image")
        width, height = (
            _whole(_field(entry, side, f"image {image_id}"), side) for side in ("width", "height")
        )
        if width < 1 or height < 1:
            raise ValueError(f"image {image_id} is {width}x{height} pixels")
        if image_id in found:
            raise ValueError(f"it has image id {image_id} twice")
        incomplete = entry.get("not_exhaustive_category_ids") or []
        if not isinstance(incomplete, list) or not all(map(_is_whole, incomplete)):
            raise ValueError(f"image {image_id} has not_exhaustive_category_ids that are no ids")
        found[image_id] = _file_name(entry), Listed(width, height, [], frozenset(incomplete))
    return found


def _file_name(image: dict[str, Any]) -> str:
    name = image.get("file_name")
    if name is None and isinstance(image.get("coco_url"), str):
        name = "/".join(image["coco_url"].split("/")[-2:])
    if not isinstance(name, str) or not name:
        raise ValueError(f"image {image['id']} has no file_name")
    return name


def _categories(entries: list[Any]) -> dict[int, Category]:
    found: dict[int, Category] = {}
    for entry in entries:
        i = _whole(_field(entry, "id", "a category"), "the id of a category")
        if i in found:
            raise ValueError(f"it has category id {i} twice")
        keypoints, skeleton = (entry.get(name) or [] for name in ("keypoints", "skeleton"))
        if not isinstance(keypoints, list) or not isinstance(skeleton, list):
            raise ValueError(f"category {i} has keypoints or a skeleton that are no lists")
        name = str(_field(entry, "name", f"category {i}"))
        synset = str(entry.get("synset") or "")
        found[i] = Category(name, tuple(map(str, keypoints)), tuple(skeleton), synset)
    return found


def _present(annotation: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    kept = {field: annotation[field] for field in FIELDS if annotation.get(field) not in (None, [])}
    # COCO writes zeros for an object whose joints nobody marked: drop them, they are no annotation.
    if isinstance(kept.get("keypoints"), list) and not any(kept["keypoints"]):
        del kept["keypoints"]
    return kept


def _list(content: Any, name: str, *, required: bool = True) -> list[Any]:
    if not isinstance(content, dict):
        raise ValueError(f"it is a {type(content).__name__}")
    found = content.get(name)
    if found is None and not required:
        return []
    if not isinstance(found, list):
        raise ValueError(f"{name} is {'absent' if found is None else 'no list'}")
    return found


def _field(entry: Any, name: str, what: str) -> Any:
    if not isinstance(entry, Mapping) or entry.get(name) is None:
        raise ValueError(f"{what} has no {name}")
    return entry[name]


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _whole(value: Any, what: str) -> int:
    if not _is_whole(value):
        raise ValueError(f"{what} is {reprlib.repr(value)}: it must be a whole number")
    return int(value)


def _repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))
