"""Scores of masks and of words. A score is a number an episode; means, errors and paired differences come after.

H, W: pixels, T: true boxes, F: found boxes.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from scipy.optimize import linear_sum_assignment

from lvm_jax.data.in_context.words import Box, Words
from lvm_jax.evaluation.base import Result
from lvm_jax.metrics.captions import plain

Scores = dict[str, float]  # NaN where there is nothing to measure
# Name -> words of which a caption has at most one of interest, such as "colour" -> {"red", "green"}.
WordSets = Mapping[str, frozenset[str]]


def mask_iou(a: Bool[np.ndarray, "H W"], b: Bool[np.ndarray, "H W"]) -> float:
    """Intersection over union; 1 if both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def mask_scores(
    mask: Bool[np.ndarray, "H W"],
    picture: UInt8[np.ndarray, "H W 3"],
    truth: Bool[np.ndarray, "H W"],
) -> Scores:
    """`miou`, and `mae`: the mean distance of the drawn picture's grey in [0, 1] from the true mask."""
    grey = picture.astype(np.float64).mean(axis=-1) / 255
    return {"miou": mask_iou(mask, truth), "mae": float(np.abs(grey - truth).mean())}


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 0 if both are empty."""
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    common = max(0.0, sides[0]) * max(0.0, sides[1])
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - common
    return common / union if union > 0 else 0.0


def boxes_iou(found: Sequence[Box], truth: Sequence[Box]) -> float:
    """IoU of the best pairs, over the larger number of boxes: missing ones and too many count 0; NaN without a truth.

    The best pairs are those that overlap most together, whatever the order of the boxes.
    """
    if not truth:
        return math.nan
    overlaps_TF = np.array([[box_iou(box, other) for other in found] for box in truth])
    best = overlaps_TF[linear_sum_assignment(overlaps_TF, maximize=True)] if found else np.zeros(0)
    return float(best.sum()) / max(len(found), len(truth))


def word_scores(found: Words, truth: Words, sets: WordSets) -> Scores:
    """`category`: is it the true one; a set's name: are the caption's words of it the true ones; `box_iou`."""
    scores = {"category": math.nan, "box_iou": boxes_iou(found.boxes, truth.boxes)}
    if truth.category:
        scores["category"] = float(found.category.strip() == truth.category.strip())
    said, true = (set(plain(words.caption).split()) for words in (found, truth))
    for name, some in sets.items():
        scores[name] = float(said & some == true & some) if true & some else math.nan
    return scores


def where(measured: Sequence[bool], scores: Sequence[Scores]) -> list[Scores]:
    """The scores of the episodes that were measured, and NaN for the others."""
    return [
        one if known else dict.fromkeys(one, math.nan)
        for known, one in zip(measured, scores, strict=True)
    ]


def summary(
    of: Mapping[str, Sequence[Scores]], controls: Collection[str], reference: str = "model"
) -> Result:
    """Means over episodes, and what each control costs.

    Args:
      of: predictor or control -> the scores of each episode.
      controls: which of them are controls.
      reference: whose scores controls are compared with.

    Returns:
      NAME/SCORE and NAME/SCORE_error, the standard error of the mean; of controls also uses_NAME/SCORE and its error:
      the reference minus NAME, paired by episode.
    """
    result: Result = {}
    for name, scores in of.items():
        for score in scores[0]:
            values = np.array([each[score] for each in scores])
            result |= _mean(f"{name}/{score}", values)
            if name in controls:
                ours = np.array([each[score] for each in of[reference]])
                result |= _mean(f"uses_{name}/{score}", ours - values)
    return result


def _mean(name: str, values: np.ndarray) -> Result:
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    found: Result = {name: float(known.mean())}
    if len(known) > 1:
        found[f"{name}_error"] = float(known.std(ddof=1) / math.sqrt(len(known)))
    return found
