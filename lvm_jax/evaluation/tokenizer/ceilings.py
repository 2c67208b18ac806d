"""The ceilings of annotation maps: the truth encoded and decoded, scored as an answer would be.

No decoder can beat them with this tokenizer. A tokenizer of photographs may be poor at maps, whose edges are sharp and
whose colours are ids.

M: items, H, W: pixels, C: the channels R, G, B.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax.data.splits import spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm.answer_scores import OF_ROLE, SCORES, Score, f1
from lvm_jax.evaluation.lvm.readers.episodes import load
from lvm_jax.evaluation.lvm.readers.folders import annotated_items
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.image import psnr
from lvm_jax.metrics.states import Mean
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_float, to_uint8
from lvm_jax.pictures.resize import resize

NOTHING = "nothing to measure"  # no truth in any map


def _photograph(decoded: np.ndarray, truth: np.ndarray) -> dict[str, Mean]:
    return {"psnr": Mean(float(psnr(to_float(decoded[None]), to_float(truth[None]))[0]))}


# Role of a map -> how it is scored.
_ROLES = ("mask", "segmentation", "boxes", "depth", "normals", "edges", "keypoints")
MAPS: Mapping[str, Score] = {
    "image": _photograph,
    **{role: SCORES[OF_ROLE[role]] for role in _ROLES},
}

Squares = UInt8[np.ndarray, "M H W 3"]


class CeilingsEvaluator:
    """Scores the reconstructions of maps, `ROLE/METRIC`: those of `answer_scores`, psnr of images, f1 of edges.

    Args:
      of_role: role -> its pictures, of the tokenizer's size; roles are those of `MAPS`.
      batch_size: pictures at once.
    """

    name = "ceilings"

    def __init__(self, of_role: Mapping[str, Squares], *, batch_size: int = 16) -> None:
        self._of_role, self._batch_size = of_role, batch_size

    def run(self, subject: VQGAN) -> Result:
        """Encodes, decodes and scores every map."""
        result: Result = {}
        for role, truths in self._of_role.items():
            codes = encode_images(subject, truths, self._batch_size)
            decoded = to_uint8(decode_codes(subject, codes, self._batch_size))
            each = (MAPS[role](made, truth) for made, truth in zip(decoded, truths))
            values = metric_states.compute(functools.reduce(metric_states.merge, each))
            if "precision" in values:
                values["f1"] = f1(values["precision"], values["recall"])
            result[f"{role}/maps"] = len(truths)
            for metric, value in values.items():
                result[f"{role}/{metric}"] = NOTHING if math.isnan(value) else value
        return result


def held_out_maps(
    root: epath.PathLike, resolution: int, held_out: frozenset[str] | None, limit: int
) -> dict[str, Squares]:
    """Reads the maps of a folder with a folder for each item: ROLE.png, roles as in `MAPS`.

    Args:
      root: such as CORPUS/scenes.
      resolution: pixels a side; maps are squashed, as everywhere.
      held_out: paths of the items relative to the parent of `root`; None takes all.
      limit: items, evenly spread; 0 takes all.

    Returns:
      role -> pictures; without roles that no item has.

    Raises:
      UserError: there is no such folder, no item is held out, none has a map, or a file cannot be read.
    """
    items = annotated_items(root, held_out)
    chosen = [items[i] for i in spread(len(items), limit)]
    of_role = {
        role: [resize(load(file), resolution) for file in files]
        for role in MAPS
        if (files := [item / f"{role}.png" for item in chosen if (item / f"{role}.png").exists()])
    }
    if not of_role:
        known = ", ".join(f"{role}.png" for role in MAPS)
        raise UserError(f"{root} has {len(chosen)} items without a map: name its files {known}")
    return {role: np.stack(pictures) for role, pictures in of_role.items()}
