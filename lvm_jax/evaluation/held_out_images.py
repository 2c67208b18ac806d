"""The images that a tokenizer was not trained on."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8
from tqdm import tqdm

from lvm_jax.data.images import BadImage, find_images, load_image, resize
from lvm_jax.data.splits import read_held_out, split_files
from lvm_jax.errors import UserError

_DEFAULT_FRACTION = 0.01  # of train_tokenizer's recipes


def held_out_files(
    images: epath.PathLike,
    tokenizer: epath.PathLike,
    held_out: str | None = None,
    fraction: float | None = None,
) -> list[str]:
    """The files below `images` that training held out.

    Args:
      images: the folder of the training, or one that it never saw.
      tokenizer: the model's folder. Where the training's config.json lies beside it, that says what was held out.
      held_out: a list of paths that was held out, in place of the training's own.
      fraction: the fraction that was held out by hash, in place of the training's own; 1 takes all files, for a folder
        that the training never saw.

    Raises:
      UserError: no image there, or nothing held out.
    """
    files = find_images(images)
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(
            f"held_out_fraction is {fraction}: it must be above 0 and at most 1 (all images)"
        )
    if fraction == 1:
        return files
    trained = _training_data(epath.Path(tokenizer).parent / "config.json")
    if held_out is None and fraction is None:
        held_out, fraction = trained.get("held_out"), trained.get("held_out_fraction")
    listed = read_held_out(held_out) if held_out else None
    return split_files(files, images, listed, fraction or _DEFAULT_FRACTION)[1]


def load_images(
    files: Sequence[str], resolution: int, *, max_bad: int = 16
) -> UInt8[np.ndarray, "m r r 3"]:
    """Squares of the files, the aspect ratio ignored as in the shards; what cannot be decoded is named and left out.

    Raises:
      UserError: more than `max_bad` files cannot be decoded, or all.
    """
    images, bad = [], 0
    for file in tqdm(files, desc="images", unit="image"):
        try:
            images.append(resize(load_image(file), resolution))
        except BadImage as error:
            bad += 1
            logging.warning("left out an image (%d of at most %d): %s", bad, max_bad, error)
            if bad > max_bad or bad == len(files):
                raise UserError(
                    f"{bad} of {len(files)} images cannot be decoded, the limit is {max_bad}; last: {error}"
                ) from error
    return np.stack(images)


def _training_data(config: epath.Path) -> dict[str, Any]:
    """The "data" part of a training's config.json; empty for a tokenizer that was trained elsewhere."""
    return json.loads(config.read_text()).get("data", {}) if config.exists() else {}
