"""What composers read from maps of flat colours: which colours there are, and where.

Any role whose pictures are black with areas of one colour each will do: classes, instances, filled boxes.

Shape legend: H, W of a picture.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Int32

from data_pipelines.items import Picture
from data_pipelines.sentences.base import Unfit

_MOST = 256  # colours; more, and the picture is no map

ColourIds = Int32[np.ndarray, "H W"]  # 65536 R + 256 G + B


def colour_ids(picture: Picture) -> ColourIds:
    """A number for each pixel's colour; 0 is black, the background."""
    return picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def areas(ids_HW: ColourIds, position: int, role: str) -> dict[int, int]:
    """Colour -> its pixels, without the background.

    Args:
      ids_HW: `colour_ids` of a map.
      position, role: of the map, for the message.

    Raises:
      Unfit: it has too many colours to be a map, such as a photograph, or a map that was stored as a JPEG.
    """
    found, counts = np.unique(ids_HW, return_counts=True)
    if len(found) > _MOST:
        raise Unfit(
            position,
            f"its {role!r} has {len(found)} colours, a map of classes or objects has at most {_MOST}: name a role of "
            "flat colours, from a file without loss",
        )
    return {int(i): int(n) for i, n in zip(found, counts, strict=True) if i}


def connected(inside_HW: Bool[np.ndarray, "H W"]) -> list[Bool[np.ndarray, "H W"]]:
    """The connected parts of a mask."""
    count, parts_HW = cv2.connectedComponents(inside_HW.view(np.uint8))
    return [parts_HW == i for i in range(1, count)]
