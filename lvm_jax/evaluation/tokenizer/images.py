"""The images that tokenizers are scored on.

M: images, H, W: pixels.
"""

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax.data.images.held_out_images import held_out_images, load_images, split_images
from lvm_jax.data.images.sources import Subset
from lvm_jax.data.splits import spread
from lvm_jax.errors import UserError


def held_out_squares(
    images: epath.PathLike,
    tokenizer: epath.PathLike,
    resolution: int,
    limit: int,
    *,
    held_out: str | None = None,
    fraction: float | None = None,
) -> UInt8[np.ndarray, "M H W 3"]:
    """Loads at most `limit` of the images that training held out, evenly spread, as squares; 0 takes all.

    Args:
      images, tokenizer, held_out, fraction: see `lvm_jax.data.images.held_out_images.held_out_images`.
      resolution: pixels a side.
      limit: how many.

    Raises:
      UserError: there is no image, none is held out, or too many cannot be decoded.
    """
    source = held_out_images(images, tokenizer, held_out, fraction)
    return load_images(Subset(source, spread(len(source.names), limit)), resolution)


def probe_squares(
    images: epath.PathLike,
    tokenizer: epath.PathLike,
    resolution: int,
    limits: tuple[int, int] = (1024, 64),
    *,
    held_out: str | None = None,
    fraction: float | None = None,
) -> tuple[UInt8[np.ndarray, "M H W 3"], UInt8[np.ndarray, "M H W 3"]]:
    """The squares that a probe learns from and those that it is scored on, evenly spread over either side.

    It learns from the tokenizer's own training images, as a decoder does. Of images that training never saw (a fraction
    of 1), an eighth at the end, at least two, is kept for the scores.

    Args:
      images, tokenizer, held_out, fraction: see `lvm_jax.data.images.held_out_images.held_out_images`.
      resolution: pixels a side.
      limits: how many of each.

    Raises:
      UserError: as in `held_out_squares`, or there are fewer than four images.
    """
    train, scored = split_images(images, tokenizer, held_out, fraction)
    if not train.names:
        total = len(scored.names)
        if total < 4:
            raise UserError(
                f"{images} has {total} images: a probe needs at least 2 to learn from and 2 for its scores; add images"
            )
        cut = total - max(2, total // 8)
        train, scored = Subset(scored, range(cut)), Subset(scored, range(cut, total))
    learnt, asked = (
        load_images(Subset(side, spread(len(side.names), limit)), resolution)
        for side, limit in zip((train, scored), limits)
    )
    return learnt, asked
