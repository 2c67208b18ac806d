"""Scores of boxes: how far two overlap, and the mean average precision of dense captions.

Shape legend: N, M boxes; 4 their (x0, y0, x1, y1); D detections; G groups of true boxes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from lvm_jax.errors import UserError

OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)
# Of DenseCap's own code. Its paper, and a port to PyTorch, begin with 0.
METEORS = (0.05, 0.1, 0.15, 0.2, 0.25)
_MERGED = 0.7  # true boxes that overlap this much are one region with several captions

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[float] | np.ndarray]


def overlaps(
    a: Float[np.ndarray, "N 4"], b: Float[np.ndarray, "M 4"], *, inclusive: bool = False
) -> Float[np.ndarray, "N M"]:
    """Intersection over union of every box with every other, in [0, 1]; 0 where both are empty.

    Args:
      a, b: boxes.
      inclusive: corners are pixels that belong to the box, so a side is one pixel longer than their distance.
    """
    more = float(inclusive)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low + more, 0), axis=-1)
    areas_a, areas_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2] + more, 0), -1) for x in (a, b))
    union = areas_a[:, None] + areas_b[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one picture: what was found, and what is there.

    Attributes:
      boxes, captions, confidences: of the detections.
      true_boxes, true_captions: of the annotations.
    """

    boxes: Float[np.ndarray, "D 4"]
    captions: Sequence[str]
    confidences: Float[np.ndarray, " D"]
    true_boxes: Float[np.ndarray, "N 4"]
    true_captions: Sequence[str]


@dataclasses.dataclass(frozen=True)
class DenseCaptions:
    """Mean average precisions, in [0, 1].

    Attributes:
      captions: over all pairs of an overlap and a METEOR.
      boxes: over the overlaps alone, whatever the captions say.
    """

    captions: float
    boxes: float


def dense_captions(
    pictures: Sequence[Regions],
    score: Score,
    *,
    min_overlaps: Sequence[float] = OVERLAPS,
    min_scores: Sequence[float] = METEORS,
) -> DenseCaptions:
    """DenseCap's mAP (Johnson et al., arXiv 1511.07571, section 4.2), as its published code computes it.

    True boxes that overlap by 0.7 become one region, of their mean box and all their captions. A detection, the most
    confident first, takes the region that it overlaps most; it is right if it is the first to take it, overlaps it
    enough, and its caption is near enough to the region's. Precision is averaged over 101 recalls.

    Args:
      pictures: their regions.
      score: captions, and the true captions of each, to a number for each: METEOR 1.5 for the published mAP.
      min_overlaps: an overlap counts from here on.
      min_scores: a score counts above this.

    Raises:
      UserError: no picture has a true box.
    """
    found = [_assigned(picture) for picture in pictures]
    regions = sum(count for _, count in found)
    if not regions:
        raise UserError(f"{len(pictures)} pictures have 0 true boxes: give at least 1")
    # A stable sort: equal confidences stay in the order of the pictures.
    detections = sorted((d for some, _ in found for d in some), key=lambda d: -d.confidence)
    scores = np.full(len(detections), -np.inf)
    touching = [i for i, d in enumerate(detections) if d.references]
    if touching:
        shown = [detections[i] for i in touching]
        scores[touching] = score([d.caption for d in shown], [d.references for d in shown])
    overlap = np.array([d.overlap for d in detections])
    first = np.array([d.first for d in detections], bool)
    near = [first & (overlap >= least) for least in min_overlaps]
    return DenseCaptions(
        float(np.mean([_precision(n & (scores > s), regions) for n in near for s in min_scores])),
        float(np.mean([_precision(n, regions) for n in near])),
    )


@dataclasses.dataclass(frozen=True)
class _Detection:
    confidence: float
    overlap: float
    first: bool
    caption: str
    references: tuple[str, ...]


def _assigned(picture: Regions) -> tuple[list[_Detection], int]:
    """A picture's detections, the most confident first, each with its region; and the number of regions."""
    groups = _merged(picture.true_boxes)
    means = [picture.true_boxes[group].mean(0) for group in groups]
    regions = np.array(means, np.float64).reshape(-1, 4)
    overlap_DG = overlaps(picture.boxes, regions, inclusive=True)
    taken: set[int] = set()
    found = []
    order: list[int] = np.argsort(-picture.confidences, kind="stable").tolist()
    for place in order:
        best = int(overlap_DG[place].argmax()) if groups else -1
        overlap = float(overlap_DG[place, best]) if groups else 0.0
        references: tuple[str, ...] = ()
        if overlap > 0:
            references = tuple(picture.true_captions[i] for i in groups[best])
        found.append(
            _Detection(
                float(picture.confidences[place]),
                overlap,
                overlap > 0 and best not in taken,
                picture.captions[place],
                references,
            )
        )
        if overlap > 0:
            taken.add(best)
    return found, len(groups)


def _merged(boxes_N4: Float[np.ndarray, "N 4"]) -> list[list[int]]:
    """Groups of boxes that overlap one of them by `_MERGED`, the largest group first."""
    close_NN = overlaps(boxes_N4, boxes_N4, inclusive=True) >= _MERGED
    groups = []
    while close_NN.any():
        group = np.flatnonzero(close_NN[close_NN.sum(0).argmax()])
        groups.append(group.tolist())
        close_NN[group] = False
        close_NN[:, group] = False
    return groups


def _precision(right_D: Bool[np.ndarray, " D"], regions: int) -> float:
    """Average precision: at each of 101 recalls, the best precision at that recall or a higher one."""
    if not len(right_D):
        return 0.0
    hits = np.cumsum(right_D)
    precision = hits / np.arange(1, len(hits) + 1)
    # In whole numbers: 100 * hits >= percent * regions is exact, a recall of 0.29 is not.
    reached = 100 * hits[None] >= np.arange(101)[:, None] * regions
    return float(np.where(reached, precision, 0).max(1).mean())
