"""Pictures as a decoder of codes sees them, for the tabs whose models read codes.

P: pictures, N: tokens per image, H, W: pixels as the model sees them, H2, W2: of the given picture.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from lvm_jax.demo.drops import Dropped, picture_of
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.pictures.resize import resize

_THUMBNAIL = 128  # side at which a given picture is kept; the page shows none larger


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """A picture.

    Attributes:
      codes_N: what the decoder reads.
      seen_HWC: the codes decoded, uint8.
      given_HWC: the given picture, squashed to a square; None for an image that started as codes.
      log_likelihood: of an image that the model drew, see `Engine.generate_scored`; 0 of any other.
    """

    codes_N: Int[np.ndarray, " N"]
    seen_HWC: UInt8[np.ndarray, "H W 3"]
    given_HWC: UInt8[np.ndarray, "H2 W2 3"] | None = None
    log_likelihood: float = 0.0


Strip = tuple[Item, ...]


class Coder:
    """Turns files and codes into items.

    Args:
      vqgan: the tokenizer.
    """

    def __init__(self, vqgan: VQGAN) -> None:
        self.vqgan = vqgan

    def of_files(self, files: Sequence[Dropped]) -> Strip:
        """Items for image files, in the same order.

        Raises:
          UserError: there is no file, or one is too large or not an image; the message names it.
        """
        if not files:
            raise UserError("0 pictures: drop at least 1")
        return self.of_pictures([picture_of(file) for file in files])

    def of_pictures(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Strip:
        """Items for pictures of any sizes."""
        side = self.vqgan.config.resolution
        small = np.stack([resize(picture, side) for picture in pictures])
        items = self.of_codes(encode_images(self.vqgan, small))
        return tuple(
            dataclasses.replace(item, given_HWC=resize(picture, max(side, _THUMBNAIL)))
            for item, picture in zip(items, pictures)
        )

    def of_codes(self, codes_PN: Int[np.ndarray, "P N"]) -> Strip:
        """Items for images that are already codes."""
        if not len(codes_PN):
            return ()
        seen = to_uint8(decode_codes(self.vqgan, codes_PN))
        return tuple(Item(codes_N, image) for codes_N, image in zip(codes_PN, seen))
