"""Pascal VOC's own files: classes, lists of image names, XML annotations.

| the format allows | we |
|---|---|
| a list of names, one a line | read them, each once |
| a class's list, `name  1`, `name -1` (not in it) or `name  0` (only difficult ones) | read the names with 1 |
| an annotation's `size` and `object`s with `name` and `bndbox` | read; refuse a box that is none |
| `part`s, `difficult`, `truncated`, `pose`, polygons and others | pass over |
| any encoding that the XML declares; a byte order mark | read |
"""

import math
import re
from typing import NamedTuple
from xml.etree import ElementTree

from etils import epath

from lvm_jax.errors import UserError

# In a segmentation mask a class has its place here plus 1 as its id; 0 is background, 255 is void.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class VocObject(NamedTuple):
    """An annotated object: its class, and its box (x0, y0, x1, y1) in pixels, the ends excluded."""

    label: str
    box: tuple[float, float, float, float]


class VocImage(NamedTuple):
    """What an XML annotation says of its image; sizes in pixels, 0 if unknown."""

    width: float
    height: float
    objects: list[VocObject]


def read_list(path: epath.PathLike) -> list[str]:
    """The lines of a list such as ImageSets/Main/val.txt, one name each, without blank lines.

    Raises:
      UserError: no such file, or it is no UTF-8.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: point at the root of the data set")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows's editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the data set is damaged: {path} ({error}); download it again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_names(path: epath.PathLike) -> list[str]:
    """The images of a list, each once: of a list of names all, of a class's list those that it marks with 1.

    Raises:
      UserError: as `read_list`, or no image is left.
    """
    lines = read_list(path)
    marked = [re.fullmatch(r"(.+?)\s+(-1|0|1)", line) for line in lines]
    # All or none: names may have spaces and numbers.
    of_class = all(marked)
    names = [match[1] for match in marked if match and match[2] == "1"] if of_class else lines
    if not names:
        raise UserError(f"{path} lists no image{' with 1' if lines else ''}: name another split")
    return list(dict.fromkeys(names))


def read_annotation(path: epath.PathLike) -> VocImage:
    """Reads one file of Annotations/.

    Raises:
      UserError: the file is missing, is not an annotation, or has an object without a name or a box.
    """
    try:
        tree = ElementTree.fromstring(epath.Path(path).read_bytes())
        if tree.tag != "annotation":
            raise ValueError(f"its root is {tree.tag!r}, not 'annotation'")
        width, height = (_number(tree, f"size/{side}", "0") for side in ("width", "height"))
        objects = [_object(element) for element in tree.findall("object")]
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:  # no such encoding
        raise UserError(f"the data set is damaged: {path} ({error}); download it again") from error
    return VocImage(width, height, objects)


def _object(element: ElementTree.Element) -> VocObject:
    label = element.findtext("name", "").strip()
    x0, y0, x1, y1 = (
        _number(element, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")
    )
    if not label or x1 < x0 or y1 < y0:
        raise ValueError(f"an object {label!r} has the box {x0:g}, {y0:g} to {x1:g}, {y1:g}")
    # VOC counts pixels from 1 and includes both ends.
    return VocObject(label, (x0 - 1, y0 - 1, x1, y1))


def _number(element: ElementTree.Element, path: str, default: str = "") -> float:
    text = element.findtext(path, default)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path} is {text[:40]!r}: it must be a finite number")
    return number
