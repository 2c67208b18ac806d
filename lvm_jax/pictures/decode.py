"""Picture files to arrays: 8-bit RGB as a person would see it, or the ids of a mask.

Shape legend: H, W the picture in pixels.
"""

import contextlib
import io
import struct
from collections.abc import Iterator

import numpy as np
from etils import epath
from jaxtyping import Int32, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lvm_jax.errors import BadData

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 80_000_000  # just below where Pillow warns of a decompression bomb
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


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
    formats: tuple[str, ...] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a file, or its bytes, to 8-bit RGB as a person would see it.

    Applies the EXIF orientation, composites transparency on white, converts palettes and CMYK, and scales 16-bit grey
    to 8 bits. Takes the first frame of an animation.

    Args:
      source: a local or remote path, or the content of a file.
      max_pixels: larger images are refused before decoding.
      enough: the short side that the caller needs. A JPEG of 2, 4 or 8 times that size is decoded that much smaller, in
        a fraction of the time. 0 decodes it whole.
      formats: Pillow's names of the formats that may be opened; by default all. Name them if the file comes from a
        stranger: Pillow starts another program to read some formats, such as EPS.

    Raises:
      BadImage: unreadable, truncated, too large, or its pixels have no fixed range (32-bit, float).
    """
    with _opened(source, formats) as (image, name):
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage(name, f"{width}x{height} pixels exceed the limit of {max_pixels}")
        if enough:
            # draft scales inside the JPEG decoder, before the pixels exist; other formats ignore it.
            image.draft(None, (enough, enough))
        return to_rgb(image, name)


def load_ids(source: epath.PathLike | bytes) -> Int32[np.ndarray, "H W"]:
    """Decodes the ids of a mask, not its colours: palette indices, or grey levels of 1, 8 or 16 bits.

    Raises:
      BadImage: unreadable, or a picture in true colours.
    """
    with _opened(source) as (image, name):
        if image.mode not in ("P", "L", "1", "I", "I;16"):
            raise BadImage(name, f"is of mode {image.mode}, no indexed mask: read it as a picture")
        return np.asarray(image).astype(np.int32)


def to_rgb(image: Image.Image, name: str = "<image>") -> UInt8[np.ndarray, "H W 3"]:
    """Converts a Pillow image of any mode to 8-bit RGB; see `load_image`.

    Raises:
      BadImage: as in `load_image`; Pillow's own errors for a damaged file pass through.
    """
    image.load()
    if (
        image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    ):  # exif_transpose copies even when there is nothing to turn
        image = ImageOps.exif_transpose(image)
    return _to_rgb(image, name)


@contextlib.contextmanager
def _opened(
    source: epath.PathLike | bytes, formats: tuple[str, ...] | None = None
) -> Iterator[tuple[Image.Image, str]]:
    """Opens a picture and gives it a name; turns errors in the block into `BadImage`."""
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else epath.Path(source).read_bytes()
        with Image.open(io.BytesIO(content), formats=formats) as image:
            yield image, name
    except BadImage:
        raise
    except UnidentifiedImageError as error:  # its own message names the address of a buffer
        raise BadImage(name, "cannot be decoded (not an image of a known kind)") from error
    except _DECODE_ERRORS as error:
        raise BadImage(name, f"cannot be decoded ({error})") from error


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "F":
        raise BadImage(name, "its pixels are floats, which have no fixed range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise BadImage(name, "its pixels are 32-bit integers, which have no fixed range")
        # 65535 / 257 is 255.
        return np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=-1)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
