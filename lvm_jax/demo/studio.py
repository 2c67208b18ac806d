"""What the page does, without the page: pictures to codes, and codes to the next images. Writes nothing to disk.

P: images of the prompt, B: candidates, N: tokens per image, G: sqrt(N), K: codes, D: dimensions of a code, H, W: pixels
as the model sees them, H2, W2: of the given picture, C: the channels R, G, B.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from lvm_jax.errors import UserError
from lvm_jax.inference.cases import Case
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.inference.image_generator import ImageGenerator
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.decode import BadImage, load_image
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.pictures.resize import resize

MAX_BYTES = 20 << 20  # of one file
MAX_PIXELS = 40_000_000  # checked in the file's header, before anything is decoded
MAX_CANDIDATES = 8
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # their decoders start no other program
_THUMBNAIL = 128  # side at which a given picture is kept; the page shows none larger
_SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class Item:
    """One image of the strip.

    Attributes:
      codes_N: what the decoder reads.
      seen_HWC: the codes decoded, uint8.
      given_HWC: the given picture, squashed to a square; None for an image that started as codes.
    """

    codes_N: Int[np.ndarray, " N"]
    seen_HWC: UInt8[np.ndarray, "H W 3"]
    given_HWC: UInt8[np.ndarray, "H2 W2 3"] | None = None


Strip = tuple[Item, ...]


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt to start from: its name, its images, and the known answers."""

    name: str
    strip: Strip
    truth: Strip


class Studio:
    """A tokenizer and a decoder, ready to be asked.

    Args:
      vqgan: the tokenizer.
      model: the decoder that was trained with it.

    Attributes:
      max_prompt: images that a prompt may have, so that one more fits the context.
      colours_K3: uint8, a colour for each code; similar codes have similar colours.

    Raises:
      UserError: the two do not match, or have weights that are not finite.
    """

    def __init__(self, vqgan: VQGAN, model: Decoder) -> None:
        self.vqgan = vqgan
        self._engine = ImageGenerator(model, vqgan).engine
        self.max_prompt = self._engine.context_images - 1
        self.colours_K3 = code_colours(np.asarray(vqgan.quantizer.codebook[...]))

    def tokenise(self, files: Sequence[tuple[str, bytes]]) -> Strip:
        """Turns image files, as (name, content), into items in the same order.

        Raises:
          UserError: there is no file, or one is too large or not an image; the message names it.
        """
        if not files:
            raise UserError("0 pictures: drop at least 1")
        pictures = [_decode(name, content) for name, content in files]
        side = self.vqgan.config.resolution
        small = np.stack([resize(picture, side) for picture in pictures])
        codes_PN = encode_images(self.vqgan, small)
        return tuple(
            dataclasses.replace(item, given_HWC=resize(picture, max(side, _THUMBNAIL)))
            for item, picture in zip(self.from_codes(codes_PN), pictures)
        )

    def from_codes(self, codes_PN: Int[np.ndarray, "P N"]) -> Strip:
        """Items for images that are already codes."""
        if not len(codes_PN):
            return ()
        seen = to_uint8(decode_codes(self.vqgan, codes_PN))
        return tuple(Item(codes_N, image) for codes_N, image in zip(codes_PN, seen))

    def example(self, case: Case) -> Example:
        """Turns a case into an example."""
        # Pictures from files all have the source "files"; the folder's name says more.
        source = case.source.replace("_", " ")
        name = (
            source if case.source != "files" else case.name.replace("-", " ").lstrip("0123456789 ")
        )
        return Example(name, self.from_codes(case.prompt_PN), self.from_codes(case.truth_IN))

    def add(self, strip: Strip, items: Strip) -> Strip:
        """The strip with more images at its end.

        Raises:
          UserError: there is no room for them; the strip does not change.
        """
        if len(strip) + len(items) > self.max_prompt:
            raise UserError(
                f"{len(strip)} + {len(items)} images: a prompt holds at most {self.max_prompt}, so that the next one "
                "fits the context; remove some"
            )
        return strip + items

    def next_images(self, strip: Strip, candidates: int, sampling: Sampling, seed: int) -> Strip:
        """Draws independent candidates for the image after the strip.

        Raises:
          UserError: the strip is empty or too long, or an option is out of range.
        """
        if not strip:
            raise UserError("the strip has 0 images: drop at least 1, or start from an example")
        if not 1 <= candidates <= MAX_CANDIDATES:
            raise UserError(f"{candidates} candidates: ask for 1 to {MAX_CANDIDATES}")
        if not 0 <= seed < _SEEDS:
            raise UserError(f"seed is {seed}: it must be from 0 to {_SEEDS - 1}")
        codes_BIN = self._engine.generate(
            np.stack([item.codes_N for item in strip]),
            n_candidates=candidates,
            sampling=sampling,
            seed=seed,
        )
        return self.from_codes(codes_BIN[:, 0])

    def code_map(self, item: Item) -> UInt8[np.ndarray, "G G 3"]:
        """The codes at their places in the image, each in its colour."""
        side = int(np.sqrt(len(item.codes_N)))
        return self.colours_K3[item.codes_N.reshape(side, side)]


def moved(strip: Strip, index: int, by: int) -> Strip:
    """The strip with image `index` moved by `by` places, but not beyond the ends.

    Raises:
      UserError: there is no such image.
    """
    _check_index(strip, index)
    rest = strip[:index] + strip[index + 1 :]
    place = min(max(index + by, 0), len(rest))
    return (*rest[:place], strip[index], *rest[place:])


def removed(strip: Strip, index: int) -> Strip:
    """The strip without image `index`.

    Raises:
      UserError: there is no such image.
    """
    _check_index(strip, index)
    return strip[:index] + strip[index + 1 :]


def code_colours(codebook_KD: np.ndarray) -> UInt8[np.ndarray, "K 3"]:
    """A colour for each code: the ranks of its three principal components are red, green and blue."""
    centred_KD = codebook_KD.astype(np.float64) - codebook_KD.mean(axis=0)
    _, _, axes_DD = np.linalg.svd(centred_KD, full_matrices=False)
    shown_K3 = np.zeros((len(codebook_KD), 3))
    used = min(3, len(axes_DD))
    shown_K3[:, :used] = centred_KD @ axes_DD[:used].T
    # Ranks and not values, so that an outlier does not squeeze all other colours together.
    ranks_K3 = shown_K3.argsort(axis=0).argsort(axis=0)
    return np.round(40 + 200 * ranks_K3 / max(1, len(codebook_KD) - 1)).astype(np.uint8)


def _decode(name: str, content: bytes) -> UInt8[np.ndarray, "H W 3"]:
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{name} has {len(content) / 2**20:.1f} MB: at most {MAX_BYTES >> 20} MB are read; make it smaller"
        )
    try:
        return load_image(content, MAX_PIXELS, formats=FORMATS)
    except BadImage as error:
        raise UserError(f"{name}: {error.why}; give a jpg, png, webp, gif or bmp file") from error


def _check_index(strip: Strip, index: int) -> None:
    if not 0 <= index < len(strip):
        raise UserError(f"the strip has no image {index + 1}: it has {len(strip)}")
