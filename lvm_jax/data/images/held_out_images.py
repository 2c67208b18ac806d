"""The images that a tokenizer was not trained on.

Shape legend: N images, R the side of each square.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8
from tqdm import tqdm

from lvm_jax import files
from lvm_jax.data.images.loader import Images, as_source
from lvm_jax.data.images.sources import Subset, open_images, split_source
from lvm_jax.data.splits import read_held_out
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage
from lvm_jax.pictures.resize import resize

_DEFAULT_FRACTION = 0.01  # as in the tokenizer recipe


def held_out_images(
    images: epath.PathLike,
    tokenizer: epath.PathLike,
    held_out: str | None = None,
    fraction: float | None = None,
) -> Subset:
    """The images that the tokenizer's training held out; see `split_images`."""
    return split_images(images, tokenizer, held_out, fraction)[1]


def split_images(
    images: epath.PathLike,
    tokenizer: epath.PathLike,
    held_out: str | None = None,
    fraction: float | None = None,
) -> tuple[Subset, Subset]:
    """The images that the tokenizer's training saw, and those that it held out.

    Args:
      images: the training images (see `lvm_jax.data.images.sources`), or ones that training never saw.
      tokenizer: the model's folder. If the training's config.json lies beside it, that says what was held out.
      held_out: a list of held-out paths, instead of the training's own.
      fraction: the fraction held out by hash, instead of the training's own; 1 takes all, for images that training
        never saw.

    Raises:
      UserError: no image, or nothing held out.
    """
    trained = _training_data(epath.Path(tokenizer).parent / "config.json")
    # A tokenizer trained on tars may be scored on a folder, and folders have no features.
    folder = epath.Path(images).is_dir()
    source = open_images(images, "" if folder else trained.get("feature", ""))
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(
            f"held_out_fraction is {fraction}: it must be above 0 and at most 1 (all images)"
        )
    if fraction == 1:
        return Subset(source, ()), Subset(source, range(len(source.names)))
    if held_out is None and fraction is None:
        held_out, fraction = trained.get("held_out"), trained.get("held_out_fraction")
    listed = read_held_out(held_out) if held_out else None
    return split_source(source, images, listed, fraction or _DEFAULT_FRACTION)


def load_images(
    images: Sequence[str] | Images, resolution: int, *, max_bad: int = 16
) -> UInt8[np.ndarray, "N R R 3"]:
    """Images squashed to squares, as in the shards. Logs and leaves out what cannot be decoded.

    Raises:
      UserError: more than `max_bad` images cannot be decoded, or none can.
    """
    source = as_source(images)
    squares, bad, count = [], 0, len(source.names)
    for i in tqdm(range(count), desc="images", unit="image"):
        try:
            squares.append(resize(source.load(i), resolution))
        except BadImage as error:
            bad += 1
            logging.warning("skipped an image (%d of at most %d): %s", bad, max_bad, error)
            if bad > max_bad or bad == count:
                raise UserError(
                    f"{bad} of {count} images cannot be decoded, the limit is {max_bad}; last: {error}"
                ) from error
    return np.stack(squares)


def _training_data(config: epath.Path) -> dict[str, Any]:
    """The "data" section of a training's config.json; empty for a tokenizer trained elsewhere."""
    return (files.read_json(config) or {}).get("data", {})
