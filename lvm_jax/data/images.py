"""Raw image files to tokenizer batches `{"images": uint8 (rows of this process, H, W, 3)}`, RGB."""

import contextlib
import io
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int32, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lvm_jax.data.steps import Batch, StepLoader, shuffled_index
from lvm_jax.errors import UserError

Crop = Literal["random", "resized", "center", "squash"]
_CROPS = ("random", "resized", "center", "squash")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 80_000_000  # below the size at which Pillow suspects a decompression bomb
MIN_AREA = 0.5  # the least that "resized" shows of an image
MIN_RATIO = 3 / 4  # of its box's sides, and 4 / 3 the most
MAX_ASPECT = 32  # a hair's breadth brought to `resolution` would be as large as a bomb
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class BadImage(ValueError):
    """A file that gives no image: `path` and `why`."""

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
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a file, or its bytes, to 8-bit RGB as a person would see it.

    EXIF orientation is applied, transparency composited on white, palettes and CMYK converted, 16-bit grey scaled to
    8 bits; of an animation, the first frame.

    Args:
      source: a local or remote path, or the content of a file.
      max_pixels: larger images are refused before they are decoded.
      enough: a short side; a JPEG of 2, 4 or 8 times it is decoded that much smaller, in a fraction of the time. 0: no.
      formats: Pillow's names of the kinds that may be opened; by default all it knows. Name them where the file comes
        from a stranger: some kinds, such as EPS, are read by starting another program.

    Raises:
      BadImage: unreadable, truncated, too large, or of a kind without a range (32-bit, float).
    """
    with _opened(source, formats) as (image, name):
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage(name, f"{width}x{height} pixels exceed the limit of {max_pixels}")
        if enough:
            image.draft(None, (enough, enough))
        return to_rgb(image, name)


def load_ids(source: epath.PathLike | bytes) -> Int32[np.ndarray, "h w"]:
    """The ids of a mask, not its colours: palette indices, or grey levels of 1, 8 or 16 bits.

    Raises:
      BadImage: unreadable, or a picture in true colours.
    """
    with _opened(source) as (image, name):
        if image.mode not in ("P", "L", "1", "I", "I;16"):
            raise BadImage(name, f"is of mode {image.mode}, no indexed mask: read it as a picture")
        return np.asarray(image).astype(np.int32)


def to_rgb(image: Image.Image, name: str = "<image>") -> UInt8[np.ndarray, "h w 3"]:
    """A Pillow image of any mode as 8-bit RGB; see `load_image`.

    Raises:
      BadImage: as `load_image`; what Pillow raises for a damaged file passes through.
    """
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # without a turn it would copy
        image = ImageOps.exif_transpose(image)
    return _to_rgb(image, name)


def find_images(root: epath.PathLike) -> list[str]:
    """The image files below a folder (jpg, jpeg, png, webp, bmp), sorted, hidden ones left out.

    Raises:
      UserError: no such folder, or no image in it.
    """
    folder = epath.Path(root)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: point at one that holds images")
    files = list(_walk(folder))
    if not files:
        raise UserError(
            f"{folder} holds no image ({', '.join(EXTENSIONS)}), also not in its sub-folders: add some"
        )
    return sorted(files)


def resize(
    image: UInt8[np.ndarray, "h w 3"], resolution: int, mode: Crop = "squash"
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """`resize_and_crop` before its cut: (resolution, resolution) for "squash", the image itself for "resized", else
    its shorter side is `resolution`.
    """
    height, width = image.shape[:2]
    if mode == "squash":
        size = (resolution, resolution)
    elif mode == "resized":
        return image
    elif mode in ("random", "center"):
        short = min(height, width)
        size = (
            max(resolution, round(width * resolution / short)),
            max(resolution, round(height * resolution / short)),
        )
    else:
        raise UserError(f"crop is {mode!r}: it must be one of {', '.join(_CROPS)}")
    if size == (width, height):
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def stretch(
    image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image at (height, width), the aspect ratio ignored: undoes a squash."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_and_crop(
    image: UInt8[np.ndarray, "h w 3"],
    resolution: int,
    mode: Crop,
    rng: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "r r 3"]:
    """A square of `resolution` pixels, resized by an antialiased bicubic filter.

    Args:
      image: RGB.
      resolution: side of the result.
      mode: "random" and "center" bring the shorter side to `resolution` and cut a square; "resized" cuts a box of half
        the area or more (less of an image longer than 4 to 3), its sides in a ratio of at most 4 to 3, and squashes it:
        the random resized crop; "squash" ignores the aspect ratio, as the published evaluation does.
      rng: where "random" and "resized" cut; unused otherwise.

    Raises:
      UserError: an unknown mode, or a random one without `rng`.
    """
    return _cut(resize(image, resolution, mode), resolution, mode, rng)


class FileImages:
    """Image files as a source (see `lvm_jax.data.image_sources`); a name is the path."""

    def __init__(self, files: Sequence[epath.PathLike]):
        self.names = [str(file) for file in files]

    def load(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decodes file `index`."""
        return load_image(self.names[index])


class Images(Protocol):
    """What the loader reads: images by number, each with a name; `lvm_jax.data.image_sources` opens all kinds."""

    @property
    def names(self) -> Sequence[str]:
        """Stable and unique, by number."""
        ...

    def load(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image `index`, or `BadImage`."""
        ...


def as_source(images: "epath.PathLike | Sequence[epath.PathLike] | Images") -> Images:
    """A folder or a list of files as a source; a source as it is."""
    if isinstance(images, str | os.PathLike):
        return FileImages(find_images(images))
    return FileImages(images) if isinstance(images, Sequence) else images


class ImageLoader(StepLoader):
    """Endless batches of images; the batch of step s is a pure function of the files, the arguments and s.

    A file that cannot be decoded is counted and named in a warning, and the next one in name order takes its turn: the
    result is the same on every run and for any number of processes.

    Attributes:
      files: names of all of them, in the order that the seed permutes.
    """

    def __init__(
        self,
        images: epath.PathLike | Sequence[epath.PathLike] | Images,
        resolution: int,
        global_batch: int,
        seed: int,
        crop: Crop = "random",
        flip: bool = True,
        process_index: int = 0,
        process_count: int = 1,
        *,
        max_bad: int = 100,
        cache_bytes: int = 1 << 29,
        threads: int = 1,
        prefetch: int = 2,
    ):
        """Lists the files; reads none.

        Args:
          images: a folder (`find_images`), files, or a source.
          resolution: side of the square.
          global_batch: images a step, of all processes together.
          seed: of the order, the cuts and the flips.
          crop: see `resize_and_crop`.
          flip: mirrors every other image, drawn from the seed.
          process_index: which slice of the global batch this process reads.
          process_count: number of slices.
          max_bad: undecodable files that may be passed over, each process for itself.
          cache_bytes: resized images up to this size stay in memory and are decoded once.
          threads: that read ahead; 0 reads when asked.
          prefetch: batches to read ahead, one a thread at least.

        Raises:
          UserError: no image, an unknown crop, or a batch that does not divide.
        """
        self._source = as_source(images)
        self.files = self._source.names
        if not self.files:
            raise UserError("the list of images is empty: name some")
        if crop not in _CROPS:
            raise UserError(f"crop is {crop!r}: it must be one of {', '.join(_CROPS)}")
        if resolution < 1:
            raise UserError(f"resolution is {resolution}: it must be at least 1")
        self._resolution = resolution
        self._crop: Crop = crop
        self._flip = flip
        self._max_bad = max_bad
        self._cache: dict[int, np.ndarray] = {}
        self._cache_room = cache_bytes
        self._bad: set[int] = set()
        self._lock = threading.Lock()
        super().__init__(
            seed=seed,
            global_batch=global_batch,
            process_index=process_index,
            process_count=process_count,
            threads=threads,
            prefetch=prefetch,
        )

    @property
    def bad(self) -> int:
        """Distinct undecodable files that this process has met so far."""
        return len(self._bad)

    def batch_at(self, step: int) -> Batch:
        """This process's images of `step`."""
        return {"images": np.stack([self._image(i) for i in self.indices_at(step)])}

    def _image(self, index: int) -> np.ndarray:
        """Element `index` of the global order."""
        resized = self._resized(shuffled_index(index, len(self.files), self.seed))
        rng = np.random.default_rng((self.seed, index))
        image = _cut(resized, self._resolution, self._crop, rng)
        return image[:, ::-1] if self._flip and rng.random() < 0.5 else image

    def _resized(self, first: int) -> np.ndarray:
        """File `first`, or the next one that can be decoded, before the cut."""
        for turn in range(len(self.files)):
            file = (first + turn) % len(self.files)
            if file in self._cache:
                return self._cache[file]
            if file in self._bad:
                continue
            try:
                resized = self._decode(file)
            except BadImage as error:
                self._count_bad(file, error)
                continue
            with self._lock:
                if file not in self._cache and resized.nbytes <= self._cache_room:
                    self._cache[file] = resized
                    self._cache_room -= resized.nbytes
            return resized
        raise UserError(
            f"none of the {len(self.files)} images can be decoded, the last is {self.files[first - 1]}"
        )

    def _decode(self, file: int) -> np.ndarray:
        image = self._source.load(file)
        height, width = image.shape[:2]
        if self._crop != "squash" and max(height, width) > MAX_ASPECT * min(height, width):
            raise BadImage(self.files[file], f"{width}x{height} is longer than {MAX_ASPECT} to 1")
        return resize(image, self._resolution, self._crop)

    def _count_bad(self, file: int, error: BadImage) -> None:
        with self._lock:
            if file in self._bad:
                return
            if len(self._bad) == self._max_bad:
                raise UserError(
                    f"more images that cannot be decoded than the limit of {self._max_bad}; the last: {error}"
                )
            self._bad.add(file)
            count = len(self._bad)
        logging.warning("passed over an image (%d of at most %d): %s", count, self._max_bad, error)


def _walk(folder: epath.Path) -> Iterator[str]:
    # Not epath's walk, which loses the gs:// of what it finds (etils 1.15).
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.name.lower().endswith(EXTENSIONS):
            yield str(path)
        elif path.is_dir():
            yield from _walk(path)


@contextlib.contextmanager
def _opened(
    source: epath.PathLike | bytes, formats: tuple[str, ...] | None = None
) -> Iterator[tuple[Image.Image, str]]:
    """A picture and its name; what goes wrong in the block is told as a `BadImage`."""
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else epath.Path(source).read_bytes()
        with Image.open(io.BytesIO(content), formats=formats) as image:
            yield image, name
    except BadImage:
        raise
    except UnidentifiedImageError as error:  # whose own message names a buffer's address
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
        return np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=-1)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _cut(
    image: np.ndarray, resolution: int, mode: Crop, rng: np.random.Generator | None
) -> np.ndarray:
    spare_y, spare_x = image.shape[0] - resolution, image.shape[1] - resolution
    if mode in ("random", "resized"):
        if rng is None:
            raise UserError(f"crop {mode!r} needs a random generator: pass rng")
        if mode == "resized":
            return _cut_resized(image, resolution, rng)
        y, x = int(rng.integers(spare_y + 1)), int(rng.integers(spare_x + 1))
    else:
        y, x = spare_y // 2, spare_x // 2
    return image[y : y + resolution, x : x + resolution]


def _cut_resized(image: np.ndarray, resolution: int, rng: np.random.Generator) -> np.ndarray:
    """Area and logarithm of the ratio of the box are drawn evenly; a box that is too long is clipped."""
    height, width = image.shape[:2]
    area = rng.uniform(MIN_AREA, 1) * height * width
    ratio = np.exp(rng.uniform(np.log(MIN_RATIO), -np.log(MIN_RATIO)))
    box_width = min(width, max(1, round(float(np.sqrt(area * ratio)))))
    box_height = min(height, max(1, round(float(np.sqrt(area / ratio)))))
    x, y = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
    box = Image.fromarray(image[y : y + box_height, x : x + box_width])
    return np.asarray(box.resize((resolution, resolution), Image.Resampling.BICUBIC))
