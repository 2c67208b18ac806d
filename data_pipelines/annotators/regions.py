"""Connected regions of a mask."""

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int32


def regions(
    mask: Bool[np.ndarray, "H W"],
) -> tuple[Int32[np.ndarray, "N 5"], Float64[np.ndarray, "N 2"]]:
    """Connected regions (of 4 neighbours): rows (x, y, width, height, area), and centres (x, y)."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return stats[1:], centres[1:]
