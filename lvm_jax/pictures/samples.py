"""What the samples of a picture file mean, where Pillow scales them, cuts them or leaves them as they are.

Pillow scales grey of 2 and 4 bits to 255 but not the transparent level beside it, drops the lower half of 16-bit RGB
before that could be compared with the transparent colour, and ignores the transparent level of 16-bit grey.

Shape legend: *shape a picture, or its pixels; H, W a picture.
"""

import io
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Shaped
from PIL import ExifTags, Image, ImageFile, PngImagePlugin

_TRANSPARENT = "transparency"  # Pillow's key of the transparent level, colour or palette entries
# By EXIF orientation, TIFF 6.0, section 8: what turns the stored picture upright.
_UPRIGHT = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


class Levels(NamedTuple):
    """The largest grey level that a file can store, and the one that Pillow makes of it."""

    stored: int
    loaded: int

    def as_stored(self, loaded: Shaped[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
        """Undoes Pillow's scaling."""
        if self.stored == self.loaded:
            return loaded.astype(np.int32)
        return np.rint(loaded * (self.stored / self.loaded)).astype(np.int32)


def levels_of(image: Image.Image) -> Levels:
    """The levels of an opened image that is not decoded yet; afterwards the file's depth is forgotten."""
    tile = image.tile[0] if isinstance(image, ImageFile.ImageFile) and image.tile else None
    arguments = (tile.args if tile else None) or ()
    raw, *more = (arguments,) if isinstance(arguments, str) else (*arguments, None)
    largest = 65535 if image.mode == "I" or image.mode.startswith("I;16") else 255
    if tile and tile.codec_name.startswith("ppm") and isinstance(more[0], int):
        return Levels(more[0], largest)  # the maximum that the header states
    if isinstance(raw, str) and (few := re.match(r"L;([24])", raw)):
        return Levels(2 ** int(few[1]) - 1, 255)
    if raw == "I;12":  # the one that Pillow does not scale
        return Levels(4095, 4095)
    return Levels(largest, largest)


def clear_pixels(image: Image.Image) -> Bool[np.ndarray, "H W"] | None:
    """Where an opened PNG of 16-bit RGB has its transparent colour; None for all others."""
    if not isinstance(image, PngImagePlugin.PngImageFile) or _TRANSPARENT not in image.info:
        return None
    if image.fp is None or not image.tile or image.tile[0].args != "RGB;16B":
        return None
    place = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(place)
    colour = np.asarray(image.info[_TRANSPARENT])
    clear = np.ones((image.height, image.width), bool)
    # Pillow gives one byte of each sample: read as if the other byte order were meant, the lower one.
    for order, byte in (("B", colour >> 8), ("L", colour & 255)):
        with PngImagePlugin.PngImageFile(io.BytesIO(content)) as half:
            half.tile = [tile._replace(args=f"RGB;16{order}") for tile in half.tile]
            clear &= (np.asarray(half) == byte).all(-1)
    return clear


def to_8_bits(
    image: Image.Image, levels: Levels, clear: Bool[np.ndarray, "H W"] | None
) -> Image.Image:
    """A decoded image with 8 bits a sample, and an alpha channel wherever Pillow would miss what is transparent."""
    level = image.info.get(_TRANSPARENT)
    if clear is not None:
        image = image.copy()
        del image.info[_TRANSPARENT]
        image.putalpha(_alpha(~clear))
    elif image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.rint(grey * (255 / levels.loaded)).astype(np.uint8))
        if isinstance(level, int):
            image.putalpha(_alpha(grey != level))
    elif image.mode == "L" and isinstance(level, int):
        # Of the two bytes that hold the level, a file of few bits uses the lowest ones (PNG, section 11.3.2.1).
        stored = levels.as_stored(np.asarray(image))
        image = image.copy()
        del image.info[_TRANSPARENT]
        image.putalpha(_alpha(stored != level & levels.stored))
    return image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a decoded image, 1 to 8: some formats store it behind the pixels."""
    # Only this one tag: others may be damaged, or of a type that cannot be written back.
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (
        Exception
    ):  # unreadable, so it turns nothing: a damaged note is no reason to lose the picture
        return 1
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def upright(
    picture: Shaped[np.ndarray, "H W *channels"], turn: int
) -> Shaped[np.ndarray, "H2 W2 *channels"]:
    """The picture, stored with EXIF orientation `turn`, as it should be seen."""
    return picture if turn == 1 else np.ascontiguousarray(_UPRIGHT[turn](picture))


def _alpha(opaque: Bool[np.ndarray, "H W"]) -> Image.Image:
    return Image.fromarray(opaque * np.uint8(255))
