"""Scores a predicted picture against the truth. A score is a dict of (sum, weight) states: merge first, then divide.

A score takes two uint8 RGB pictures of one size, prediction and truth. Protocols that compare annotations and not
pictures of them read both pictures back into annotations first.

H, W: pixels, K: keypoints.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from lvm_jax.metrics.states import Mean
from lvm_jax.pictures import annotation_maps as maps

Picture = UInt8[np.ndarray, "H W 3"]
States = dict[str, Mean]
Score = Callable[[Picture, Picture], States]

IMAGENET_STD = np.array([0.229, 0.224, 0.225])
PCK_FRACTION = 0.1
EDGE_TOLERANCE = 0.0075  # of the diagonal, as in the Berkeley edge benchmark


def iou(a: Bool[np.ndarray, "H W"], b: Bool[np.ndarray, "H W"]) -> float:
    """Intersection over union; 1 if both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def segmentation(predicted: Picture, truth: Picture) -> States:
    """IoU of the foreground, after snapping each pixel to black or white (Bar et al., arXiv 2209.00647)."""
    return {"miou": Mean(iou(maps.rgb_to_mask(predicted), maps.rgb_to_mask(truth)))}


def classes(predicted: Picture, truth: Picture) -> States:
    """Mean IoU over the classes in the truth except the background, after snapping pixels to the palette."""
    ours, theirs = (maps.rgb_to_ids(picture) for picture in (predicted, truth))
    found = [iou(ours == i, theirs == i) for i in np.unique(theirs) if i]
    return {"miou": Mean(float(np.sum(found)), float(len(found)))}


def detection(predicted: Picture, truth: Picture) -> States:
    """IoU between the true box and the bounding box of the largest white region (Bar et al., single object)."""
    box = np.zeros(predicted.shape[:2], bool)  # stays empty, and scores 0, if nothing is white
    for region in maps.regions(maps.rgb_to_mask(predicted))[:1]:
        x0, y0, x1, y1 = region.box
        box[y0:y1, x0:x1] = True
    return {"miou": Mean(iou(box, maps.rgb_to_mask(truth)))}


def colorization(predicted: Picture, truth: Picture) -> States:
    """Mean squared error of pixels normalised by ImageNet's statistics; the mean cancels in the difference."""
    difference = (predicted.astype(np.float64) - truth) / 255 / IMAGENET_STD
    return {"mse": Mean(float(np.mean(difference**2)))}


def pck(
    predicted: Float[np.ndarray, "K 2"],
    truth: Float[np.ndarray, "K 2"],
    size: float,
    fraction: float = PCK_FRACTION,
) -> States:
    """Percentage of correct keypoints: those within `fraction * size` of the truth.

    Args:
      predicted: (x, y); NaN for one that was not drawn, which counts as a miss.
      truth: (x, y); NaN for one that does not exist, which does not count.
      size: the longer side of the object's box, in pixels.
      fraction: of `size`.
    """
    known = ~np.isnan(truth).any(-1)
    distance = np.linalg.norm(predicted - truth, axis=-1)
    right = np.count_nonzero(known & (distance <= fraction * size))  # NaN compares as False
    return {f"pck@{fraction:g}": Mean(float(right), float(np.count_nonzero(known)))}


def keypoints(predicted: Picture, truth: Picture) -> States:
    """PCK of drawn discs; the object's box is the one around all that the truth draws."""
    colours = ((0, 0, 0), maps.LANDMARK_LIMB, *maps.LANDMARKS)
    drawn = np.argwhere(maps.nearest(truth, colours) > 0)
    size = float((np.ptp(drawn, axis=0) + 1).max()) if len(drawn) else 1.0
    return pck(_landmarks(predicted), _landmarks(truth), size)


def _landmarks(drawing: Picture) -> Float[np.ndarray, "K 2"]:
    """The centre of the largest disc of each colour; NaN for a colour without a disc."""
    found = maps.rgb_to_keypoints(drawing, maps.LANDMARKS, [maps.LANDMARK_LIMB])
    return np.array([discs[0] if len(discs) else (np.nan, np.nan) for discs in found])


def depth(predicted: Picture, truth: Picture) -> States:
    """AbsRel, squared error and delta < 1.25 of the depth read back, where the truth has a surface (not black)."""
    surface = truth.any(-1)
    ours, theirs = maps.rgb_to_depth(predicted)[surface], maps.rgb_to_depth(truth)[surface]
    weight = float(surface.sum())
    ratio = np.maximum(ours / theirs, theirs / ours)
    return {
        "absrel": Mean(float((np.abs(ours - theirs) / theirs).sum()), weight),
        "mse": Mean(float(((ours - theirs) ** 2).sum()), weight),
        "delta_1.25": Mean(float((ratio < 1.25).sum()), weight),
    }


def normals(predicted: Picture, truth: Picture) -> States:
    """Mean angle in degrees where the truth has a surface; a prediction without one there counts as 90."""
    ours, theirs = maps.rgb_to_normals(predicted), maps.rgb_to_normals(truth)
    surface = theirs.any(-1)  # no surface reads as the zero vector, and its cosine is 0
    angles = np.degrees(np.arccos(np.clip((ours * theirs).sum(-1), -1, 1)))[surface]
    return {"mean_angle": Mean(float(angles.sum()), float(surface.sum()))}


def edges(predicted: Picture, truth: Picture) -> States:
    """Precision and recall of edge pixels; a hit is within 0.75 % of the diagonal."""
    ours, theirs = maps.rgb_to_mask(predicted), maps.rgb_to_mask(truth)
    reach = EDGE_TOLERANCE * float(np.hypot(*truth.shape[:2]))

    def near(here: np.ndarray, there: np.ndarray) -> Mean:
        if not there.any():  # the distance to nothing is undefined: every pixel is a miss
            return Mean(0.0, float(here.sum()))
        distance = np.asarray(ndimage.distance_transform_edt(~there))
        return Mean(float((distance[here] <= reach).sum()), float(here.sum()))

    return {"precision": near(ours, theirs), "recall": near(theirs, ours)}


def picture(predicted: Picture, truth: Picture) -> States:
    """Squared error of pixels in [0, 1]; `headline` turns its mean into a PSNR."""
    return {"mse": Mean(float(np.mean(((predicted.astype(np.float64) - truth) / 255) ** 2)))}


# Also scored by LPIPS, whose weights do not fit into a table of functions: see `visual_benchmark`.
COLORIZATION = "colorization"
PICTURE = "picture"

SCORES: Mapping[str, Score] = {
    "segmentation": segmentation,
    "classes": classes,
    "detection": detection,
    COLORIZATION: colorization,
    "keypoints": keypoints,
    "depth": depth,
    "normals": normals,
    "edges": edges,
    PICTURE: picture,
}

# Not in the table because it compares points and not pictures: see `visual_benchmark`.
JOINTS = "joints"

# Which metrics rank answers, and whether higher is better.
_ORDERED_BY: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "segmentation": (("miou",), True),
    "classes": (("miou",), True),
    "detection": (("miou",), True),
    COLORIZATION: (("mse",), False),
    "keypoints": ((f"pck@{PCK_FRACTION:g}",), True),
    JOINTS: ((f"pck@{PCK_FRACTION:g}",), True),
    "depth": (("absrel",), False),
    "normals": (("mean_angle",), False),
    "edges": (("precision", "recall"), True),
    PICTURE: (("mse",), False),
}

# Role of an answer -> how it is scored; pictures of all other roles are compared as pictures.
OF_ROLE: Mapping[str, str] = {
    "mask": "segmentation",
    "class_mask": "segmentation",
    "attribute": "segmentation",
    "box": "detection",
    "segmentation": "classes",
    "palette": "classes",
    "boxes": "classes",
    "depth": "depth",
    "normals": "normals",
    "edges": "edges",
    "keypoints": "keypoints",
}


class Headline(NamedTuple):
    """The one number that stands for a score.

    Attributes:
      metric: its name.
      more_is_better: or less.
    """

    metric: str
    more_is_better: bool


HEADLINES: Mapping[str, Headline] = {
    "segmentation": Headline("miou", True),
    "classes": Headline("miou", True),
    "detection": Headline("miou", True),
    "keypoints": Headline(f"pck@{PCK_FRACTION:g}", True),
    "depth": Headline("absrel", False),
    "normals": Headline("mean_angle", False),
    "edges": Headline("f1", True),
    PICTURE: Headline("psnr", True),
}
_LEAST_MSE = 1e-10  # equal pictures have 100 dB, not infinitely many


def headline(score: str, states: States) -> float:
    """The number of `HEADLINES`, out of merged states; NaN if there is nothing to measure."""
    if score == "edges":
        return f1(states["precision"].compute(), states["recall"].compute())
    if score == PICTURE:
        return -10 * math.log10(max(states["mse"].compute(), _LEAST_MSE))
    return states[HEADLINES[score].metric].compute()


def f1(precision: float, recall: float) -> float:
    """The harmonic mean; NaN without edges in the truth, 0 if none is found."""
    if math.isnan(recall):
        return math.nan
    found = np.nan_to_num(precision) + recall
    return float(2 * np.nan_to_num(precision) * recall / found) if found else 0.0


def worst_to_best(score: str, each: Sequence[States], predictor: str = "model") -> list[int]:
    """Ranks the episodes by the quality of a predictor's answers; ties keep their order.

    Args:
      score: a key of `SCORES`, or "joints".
      each: the states of every episode, named PREDICTOR/METRIC.
      predictor: whose answers to rank.

    Returns:
      indices of the episodes that have something to measure; a metric that is NaN counts as 0 in the mean.
    """
    metrics, more_is_better = _ORDERED_BY[score]
    quality = {}
    for index, states in enumerate(each):
        values = [states[f"{predictor}/{metric}"].compute() for metric in metrics]
        if not np.isnan(values).all():
            quality[index] = float(np.mean(np.nan_to_num(values)))
    return sorted(quality, key=lambda i: quality[i] if more_is_better else -quality[i])
