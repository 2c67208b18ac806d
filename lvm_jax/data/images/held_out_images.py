"""The images that a tokenizer was not trained on."""

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

_DEFAULT_FRACTION = 0.01  # of the recipe for tokenizers


def held_out_images(
    images: epath.PathLike,
    tokenizer: epath.PathLike,
    held_out: str | None = None,
    fraction: float | None = None,
) -> Subset:
    """The images of `images` that training held out.

    Args:
      images: what the training read (see `lvm_jax.data.images.sources`), or what it never saw.
      tokenizer: the model's folder. Where the training's config.json lies beside it, that says what was held out.
      held_out: a list of paths that was held out, in place of the training's own.
      fraction: the fraction that was held out by hash, in place of the training's own; 1 takes all, for images that
        the training never saw.

    Raises:
      UserError: no image there, or nothing held out.
    """
    trained = _training_data(epath.Path(tokenizer).parent / "config.json")
    # A tokenizer that was trained on tars may be judged on a folder, which has no features.
    folder = epath.Path(images).is_dir()
    source = open_images(images, "" if folder else trained.get("feature", ""))
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(
            f"held_out_fraction is {fraction}: it must be above 0 and at most 1 (all images)"
        )
    if fraction == 1:
        return Subset(source, range(len(source.names)))
    if held_out is None and fraction is None:
        held_out, fraction = trained.get("held_out"), trained.get("held_out_fraction")
    listed = read_held_out(held_out) if held_out else None
    return split_source(source, images, listed, fraction or _DEFAULT_FRACTION)[1]


def load_images(
    images: Sequence[str] | Images, resolution: int, *, max_bad: int = 16
) -> UInt8[np.ndarray, "m r r 3"]:
    """Squares of files or of a source's images, the aspect ratio ignored as in the shards; what cannot be decoded is
    named and left out.

    Raises:
      UserError: more than `max_bad` images cannot be decoded, or all.
    """
    source = as_source(images)
    squares, bad, count = [], 0, len(source.names)
    for i in tqdm(range(count), desc="images", unit="image"):
        try:
            squares.append(resize(source.load(i), resolution))
        except BadImage as error:
            bad += 1
            logging.warning("left out an image (%d of at most %d): %s", bad, max_bad, error)
            if bad > max_bad or bad == count:
                raise UserError(
                    f"{bad} of {count} images cannot be decoded, the limit is {max_bad}; last: {error}"
                ) from error
    return np.stack(squares)


def _training_data(config: epath.Path) -> dict[str, Any]:
    """The "data" part of a training's config.json; empty for a tokenizer that was trained elsewhere."""
    return (files.read_json(config) or {}).get("data", {})
