"""Picture files to arrays: 8-bit RGB as a person would see it, or the ids of a mask.

What the formats allow beyond plain RGB, and what becomes of it:

| in the file | here |
|---|---|
| EXIF orientation 1 to 8 | turned upright; absent, damaged or out of range counts as 1 |
| alpha channel, palette with alpha, one transparent colour (tRNS of any depth) | laid on white |
| grey of 1, 2, 4, 8, 12 or 16 bits | black to white is 0 to 255; as ids, the levels that the file stores |
| RGB of 16 bits | the upper 8 |
| CMYK and YCCK, inverted by Adobe or not; YCbCr, LAB, HSV | converted to RGB |
| interlaced, progressive | read |
| animation, several pages | the first picture |
| ICC profile, gamma | not applied, as in other training pipelines: colours of annotations would change |
| 32-bit integers, floats | refused: they have no fixed range |

Shape legend: H, W the picture in pixels.
"""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from etils import epath
from jaxtyping import Int32, UInt8
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from lvm_jax.errors import BadData
from lvm_jax.pictures import samples

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 80_000_000  # just below where Pillow warns of a decompression bomb
# A progressive JPEG lies in memory at its full size, in 3 to 6 bytes a pixel, even if it is decoded at an eighth.
_FULL_SIZE = 3  # times the limit of decoded pixels


class BadImage(BadData, ValueError):
    """A file that cannot be read as an image; `path` names it, `why` says the reason."""

    def __init__(self, path: str, why: str):
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


def load_image(
    source: epath.PathLike | bytes,
    max_pixels: int = MAX_PIXELS,
    *,
    enough: int = 0,
    fit: bool = False,
    formats: tuple[str, ...] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a file, or its bytes, to 8-bit RGB as a person would see it; see the module.

    Args:
      source: a local or remote path, or the content of a file.
      max_pixels: larger images are refused before decoding. What counts for a JPEG is the size that it is decoded at,
        and three times the limit for its full size.
      enough: the short side that the caller needs. A JPEG of 2, 4 or 8 times that size is decoded that much smaller, in
        a fraction of the time. 0 decodes it whole.
      fit: decodes a JPEG that is larger than `max_pixels` at half of its size.
      formats: Pillow's names of the formats that may be opened; by default all. Name them if the file comes from a
        stranger: Pillow starts another program to read some formats, such as EPS.

    Raises:
      BadImage: unreadable, truncated, too large, or its pixels have no fixed range (32-bit, float).
    """
    content, name = _content(source)
    with _decoding(name):
        image = _opened(content, formats)
        _choose_size(image, name, max_pixels, enough, fit)
    return to_rgb(image, name)


def load_rgba(
    source: epath.PathLike | bytes, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "H W 4"]:
    """As `load_image`, with the transparency beside the colours instead of laid on white.

    Raises:
      BadImage: as in `load_image`, or nothing in the file says what is transparent.
    """
    content, name = _content(source)
    with _decoding(name):
        image = _opened(content)
        _choose_size(image, name, max_pixels)
    image, turn = _loaded(image, name)
    if not image.has_transparency_data:
        raise BadImage(name, "has no alpha channel")
    with _decoding(name):
        return samples.upright(np.asarray(image.convert("RGBA")), turn)


def load_ids(
    source: epath.PathLike | bytes, max_pixels: int = MAX_PIXELS
) -> Int32[np.ndarray, "H W"]:
    """Decodes the ids of a mask, not its colours: palette indices, or grey levels as the file stores them.

    A file of b bits holds 0 to 2^b - 1, a PGM file 0 to the maximum that it states. Transparency says nothing here.

    Raises:
      BadImage: unreadable, too large, or a picture in true colours.
    """
    content, name = _content(source)
    with _decoding(name):
        image = _opened(content)
        _choose_size(image, name, max_pixels)
        levels = samples.levels_of(image)
        image.load()
    if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
        raise BadImage(name, f"is of mode {image.mode}, no indexed mask: read it as a picture")
    ids = levels.as_stored(np.asarray(image))
    return samples.upright(ids, samples.orientation(image))


def to_rgb(image: Image.Image, name: str = "<image>") -> UInt8[np.ndarray, "H W 3"]:
    """Converts a Pillow image of any mode to 8-bit RGB; see `load_image`.

    Raises:
      BadImage: as in `load_image`.
    """
    image, turn = _loaded(image, name)
    with _decoding(name):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return samples.upright(np.asarray(image.convert("RGB")), turn)


def _content(source: epath.PathLike | bytes) -> tuple[bytes, str]:
    """The bytes of a picture, and a name for it."""
    if isinstance(source, bytes):
        return source, "<bytes>"
    try:
        return epath.Path(source).read_bytes(), str(source)
    except OSError as error:
        raise BadImage(str(source), f"cannot be decoded ({error})") from error


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises in the block into `BadImage`."""
    try:
        yield
    except BadImage:
        raise
    except UnidentifiedImageError as error:  # its own message names the address of a buffer
        raise BadImage(name, "cannot be decoded (not an image of a known kind)") from error
    # No list would be whole: a decoder promises no exceptions, and a damaged file finds every bug in it.
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(name, f"cannot be decoded ({why})") from error


def _opened(content: bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Reads the header."""
    if content.startswith(b"\xff\xd8\xff") and (formats is None or "JPEG" in formats):
        # Image.open refuses a JPEG by its full size, though it may be decoded at an eighth of that.
        return JpegImagePlugin.JpegImageFile(io.BytesIO(content))
    return Image.open(io.BytesIO(content), formats=formats)


def _choose_size(
    image: Image.Image, name: str, max_pixels: int, enough: int = 0, fit: bool = False
) -> None:
    """Sets the size at which an opened image will be decoded; only JPEG has a choice.

    Raises:
      BadImage: that is still too large.
    """
    width, height = image.size
    fix = "scale the file down"
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        largest = _FULL_SIZE * max_pixels
        if width * height > largest:
            raise BadImage(
                name, f"{width}x{height} pixels exceed the limit of {largest} of a JPEG: {fix}"
            )
        fix += "; a folder of images with short_side decodes it small"
        if enough:
            # draft scales inside the JPEG decoder, before the pixels exist.
            image.draft(None, (enough, enough))
        elif fit and width * height > max_pixels:
            image.draft(None, (max(1, width // 2), max(1, height // 2)))
    if image.width * image.height > max_pixels:
        raise BadImage(name, f"{width}x{height} pixels exceed the limit of {max_pixels}: {fix}")


def _loaded(image: Image.Image, name: str) -> tuple[Image.Image, int]:
    """Decodes the pixels to 8 bits, transparency kept; also the orientation, which is still to be applied."""
    with _decoding(name):
        levels = samples.levels_of(image)
        clear = samples.clear_pixels(image)
        image.load()
    if image.mode == "F":
        raise BadImage(name, "its pixels are floats, which have no fixed range")
    turn = samples.orientation(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > levels.loaded:
            raise BadImage(name, "its pixels are 32-bit integers, which have no fixed range")
    return samples.to_8_bits(image, levels, clear), turn
