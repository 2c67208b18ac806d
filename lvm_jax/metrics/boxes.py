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


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The detections of one picture beside its regions, the most confident first.

    Attributes:
      confidences: of the detections.
      overlaps: with the region that each overlaps most, in [0, 1].
      first: whether it is the first to take that region.
      scores: of its caption beside the region's captions; -inf without a region, or if captions were not compared.
      regions: how many there are to be found.
    """

    confidences: Float[np.ndarray, " D"]
    overlaps: Float[np.ndarray, " D"]
    first: Bool[np.ndarray, " D"]
    scores: Float[np.ndarray, " D"]
    regions: int


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
    return precisions(found_in(pictures, score), min_overlaps=min_overlaps, min_scores=min_scores)


def found_in(pictures: Sequence[Regions], score: Score | None) -> list[Found]:
    """Takes detections to regions, each picture by itself; see `dense_captions`.

    Args:
      pictures: their regions.
      score: see `dense_captions`; called once. None: captions are not compared.
    """
    assigned = [_assigned(picture) for picture in pictures]
    touching = [(said, shown) for _, texts in assigned for said, shown in texts if shown]
    compared = iter(score(*zip(*touching)) if score and touching else ())
    found = []
    for one, texts in assigned:
        values = [next(compared, -np.inf) if shown else -np.inf for _, shown in texts]
        found.append(dataclasses.replace(one, scores=np.array(values, np.float64)))
    return found


def precisions(
    found: Sequence[Found],
    *,
    min_overlaps: Sequence[float] = OVERLAPS,
    min_scores: Sequence[float] = METEORS,
) -> DenseCaptions:
    """The mean average precisions of pictures together; arguments and errors as in `dense_captions`."""
    regions = sum(one.regions for one in found)
    if not regions:
        raise UserError(f"{len(found)} pictures have 0 true boxes: give at least 1")
    confidences, overlap, first, scores = (
        np.concatenate([vars(one)[name] for one in found])
        for name in ("confidences", "overlaps", "first", "scores")
    )
    # A stable sort: equal confidences stay in the order of the pictures.
    order = np.argsort(-confidences, kind="stable")
    overlap, first, scores = overlap[order], first[order], scores[order]
    near = [first & (overlap >= least) for least in min_overlaps]
    return DenseCaptions(
        float(np.mean([_precision(n & (scores > s), regions) for n in near for s in min_scores])),
        float(np.mean([_precision(n, regions) for n in near])),
    )


_Texts = list[tuple[str, tuple[str, ...]]]  # of each detection: its caption, those of its region


def _assigned(picture: Regions) -> tuple[Found, _Texts]:
    """A picture's detections, each with its region; not scored yet."""
    groups = _merged(picture.true_boxes)
    means = [picture.true_boxes[group].mean(0) for group in groups]
    regions = np.array(means, np.float64).reshape(-1, 4)
    overlap_DG = overlaps(picture.boxes, regions, inclusive=True)
    order: list[int] = np.argsort(-picture.confidences, kind="stable").tolist()
    overlap_D, first_D = np.zeros(len(order)), np.zeros(len(order), bool)
    taken: set[int] = set()
    texts: _Texts = []
    for at, place in enumerate(order):
        shown: tuple[str, ...] = ()
        best = int(overlap_DG[place].argmax()) if groups else -1
        if groups and overlap_DG[place, best] > 0:
            overlap_D[at], first_D[at] = overlap_DG[place, best], best not in taken
            shown = tuple(picture.true_captions[i] for i in groups[best])
            taken.add(best)
        texts.append((picture.captions[place], shown))
    nothing = np.full(len(order), -np.inf)
    confidences = picture.confidences[order].astype(np.float64)
    return Found(confidences, overlap_D, first_D, nothing, len(groups)), texts


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
