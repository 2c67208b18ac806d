"""The images that tokenizers are scored on.

M: images, H, W: pixels.
"""

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax.data.images.held_out_images import held_out_images, load_images
from lvm_jax.data.images.sources import Subset
from lvm_jax.data.splits import spread


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
