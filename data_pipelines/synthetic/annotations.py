"""The truth about a made picture, drawn as pictures by the conventions of `lvm_jax.pictures`."""

from collections.abc import Callable, Mapping

import numpy as np

from data_pipelines.annotators.keypoints import draw_keypoints
from data_pipelines.items import Picture
from data_pipelines.synthetic.edges import true_edges
from data_pipelines.synthetic.renderer import Frame
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.boxes import draw_boxes

ClassIds = Mapping[str, int]  # kind -> id of its colour


def _segmentation(frame: Frame, class_ids: ClassIds) -> Picture:
    # Class colours, not instance colours: only classes can be told from the image.
    ids = np.array([0, *(class_ids[kind] for kind in frame.kinds)])
    return maps.ids_to_rgb(ids[frame.segmentation])


def _boxes(frame: Frame, class_ids: ClassIds) -> Picture:
    # Far to near, so that the nearer box covers the other, as in the image.
    far_first = np.argsort(_distances(frame))[::-1]
    ids = np.array([class_ids[kind] for kind in frame.kinds])
    return draw_boxes(frame.boxes[far_first], ids[far_first], len(frame.image))


def _distances(frame: Frame) -> list[float]:
    """Median depth of each body's visible part; inf for a hidden body."""
    masks = (frame.segmentation == i + 1 for i in range(len(frame.kinds)))
    return [float(np.median(frame.depth[mask])) if mask.any() else np.inf for mask in masks]


# Role -> its picture of a frame.
ANNOTATIONS: dict[str, Callable[[Frame, ClassIds], Picture]] = {
    "segmentation": _segmentation,
    "instances": lambda frame, _: maps.ids_to_rgb(frame.segmentation),
    "depth": lambda frame, _: maps.depth_to_rgb(frame.depth),
    "normals": lambda frame, _: maps.normals_to_rgb(frame.normals),
    "edges": lambda frame, _: true_edges(frame.segmentation, frame.depth, frame.normals),
    "boxes": _boxes,
    "keypoints": lambda frame, _: draw_keypoints(frame.keypoints, len(frame.image)),
}
