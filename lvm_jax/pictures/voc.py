"""Pascal VOC's own files: classes, lists of image names, XML annotations."""

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
      UserError: no such file.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: point at the root of the data set")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def read_annotation(path: epath.PathLike) -> VocImage:
    """Reads one file of Annotations/.

    Raises:
      UserError: the file is missing, or is not an annotation.
    """
    try:
        tree = ElementTree.fromstring(epath.Path(path).read_text())
        width, height = (float(tree.findtext(f"size/{side}", "0")) for side in ("width", "height"))
        objects = [_object(element) for element in tree.findall("object")]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"the data set is damaged: {path} ({error}); download it again") from error
    return VocImage(width, height, objects)


def _object(element: ElementTree.Element) -> VocObject:
    x0, y0, x1, y1 = (
        float(element.findtext(f"bndbox/{corner}", "0"))
        for corner in ("xmin", "ymin", "xmax", "ymax")
    )
    # VOC counts pixels from 1 and includes both ends.
    return VocObject(element.findtext("name", ""), (x0 - 1, y0 - 1, x1, y1))
