"""Sources of images: folders, WebDataset tar files, TFRecords of encoded images, TFDS datasets.

A source is a fixed sequence of encoded images, each with a stable, unique name; order, cuts and sharding are the
loader's business. `open_images` tells the format from one string:

| string | format |
|---|---|
| `photos/` | a folder, sub-folders included |
| `shards/train-*.tar`, `shards/train-{000..127}.tar` | tar files; members with an image extension are images |
| `shards/train.tfrecord-*` | TFRecords; a feature holds an encoded image |
| `tfds://NAME:SPLIT`, such as `tfds://imagenet2012:train[:90%]` | TensorFlow Datasets, if installed |

Members of uncompressed tars and records of indexed TFRecords are read in place, in any order.

Shape legend: H, W an image in pixels.
"""

import importlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax import files
from lvm_jax.data.images.loader import FileImages, Images
from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.tar_members import Place, is_tar, list_members, read_member
from lvm_jax.data.splits import split_numbers
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import EXTENSIONS, BadImage, load_image
from lvm_jax.pictures.listing import find_images

_TFDS = "tfds://"
_RECORD_FEATURE, _TFDS_FEATURE = "image/encoded", "image"


def open_images(where: epath.PathLike, feature: str = "") -> Images:
    """Opens the source that `where` names; see the module.

    Args:
      where: a folder, a pattern of tars or TFRecords, or `tfds://NAME:SPLIT`.
      feature: which image, if an item has several. For tars, a member's extension ("jpg"; default: every image); for
        TFRecords, a feature's name (default: "image/encoded"); for TFDS too (default: "image").

    Raises:
      UserError: nothing there, or no images in it.
    """
    text = str(where)
    if text.startswith(_TFDS):
        return TfdsImages(text.removeprefix(_TFDS), feature or _TFDS_FEATURE)
    last = text.rstrip("/").rsplit("/", 1)[-1]
    if last.lower().endswith((".tar.gz", ".tgz")):
        raise UserError(f"{text} is compressed: its members cannot be read in any order; gunzip it")
    if is_tar(last):
        return TarImages(expand(text), feature)
    if "tfrecord" in last and not epath.Path(text).is_dir():
        return RecordImages(expand(text), feature or _RECORD_FEATURE)
    if feature:
        raise UserError(
            f"feature is {feature!r} for the folder {text}: only tars, TFRecords and TFDS have features"
        )
    return FileImages(find_images(text))


def expand(pattern: str) -> list[str]:
    """The sorted files that match a pattern: `{000..127}` ranges, `*`, `?` and `[...]`; a path that exists is none.

    Raises:
      UserError: no file matches.
    """
    if epath.Path(pattern).exists():
        return [pattern]
    found = []
    for path in _ranges(pattern):
        # `train.tfrecord-*` also matches the indices beside the shards.
        fitting = [str(file) for file in files.expand(path) if not file.name.endswith(".index")]
        if not fitting:
            no_pattern = not any(letter in path for letter in "*?[")
            what = f"{path} does not exist" if no_pattern else f"no file matches {path}"
            raise UserError(f"{what}: check config.data.images")
        found += fitting
    return found


class Subset:
    """Some images of a source, by number; an image may occur more than once.

    Attributes:
      numbers: each image's number in the source.
      names: each image's name in the source.
    """

    def __init__(self, source: Images, numbers: Iterable[int]):
        self._source, self.numbers = source, list(numbers)
        self.names = [source.names[number] for number in self.numbers]

    def load(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Decodes image `index` of the subset."""
        return self._source.load(self.numbers[index])


def split_source(
    source: Images, where: epath.PathLike, held_out: frozenset[str] | None, fraction: float
) -> tuple[Subset, Subset]:
    """Splits a source into training and held-out images, by name; see `split_numbers`.

    Args:
      source: all images.
      where: the string that opened them; if it is a folder, the names in a list are relative to it.
      held_out: the list; None takes `fraction` by hash.
      fraction: of the images, without a list.

    Raises:
      UserError: two images of one name, or a side of the split would be empty.
    """
    if len(set(source.names)) != len(source.names):
        raise UserError(f"{where} names an image twice: which of the two is held out is undecided")
    # Names of files are whole paths; those in tars and TFRecords are relative already.
    root = where if isinstance(source, FileImages) else "."
    train, validation = split_numbers(source.names, root, held_out, fraction)
    return Subset(source, train), Subset(source, validation)


class TarImages:
    """Members of uncompressed tar files, named `FILE.tar/MEMBER`.

    Opening reads the members' headers, not their contents.

    Raises:
      UserError: a file is not a tar or is cut short, or no member is an image.
    """

    def __init__(self, files: Sequence[str], extension: str = ""):
        wanted = (f".{extension.lower()}",) if extension else EXTENSIONS
        self.names: list[str] = []
        self._places: list[tuple[str, Place]] = []
        for file in files:
            for member, place in list_members(file):
                base = member.rsplit("/", 1)[-1]
                if base.lower().endswith(wanted) and not base.startswith("."):
                    self.names.append(f"{epath.Path(file).name}/{member}")
                    self._places.append((file, place))
        if not self.names:
            raise UserError(
                f"{files[0]} and {len(files) - 1} more hold no image ({', '.join(wanted)}): check the path"
            )

    def load(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Decodes image `index`; see `Images`."""
        file, place = self._places[index]
        name = f"{file}/{self.names[index].split('/', 1)[1]}"
        try:
            content = read_member(file, place)
        except OSError as error:
            raise BadImage(name, f"cannot be read any more ({error})") from error
        return _decoded(content, name)


class RecordImages:
    """Images in a bytes feature of TFRecords of `tf.train.Example`, named `FILE/NUMBER`.

    Raises:
      UserError: see `RecordFile`.
    """

    def __init__(self, files: Sequence[str], feature: str):
        self._feature = feature
        self._files = [RecordFile(file) for file in files]
        self._records = [(f, r) for f, file in enumerate(self._files) for r in range(len(file))]
        self.names = [f"{self._files[f].path.name}/{r:06d}" for f, r in self._records]
        if not self.names:
            raise UserError(f"{files[0]} and {len(files) - 1} more hold no record: check the path")

    def load(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Decodes image `index`; a damaged record is a bad image.

        Raises:
          UserError: the record has no such feature.
        """
        file, record = self._records[index]
        name = f"{self._files[file].path}/{record:06d}"
        try:
            features = example.decode(self._files[file][record])
        except CorruptRecord as error:
            raise BadImage(name, str(error)) from error
        values = features.get(self._feature)
        if values is None:
            known = ", ".join(sorted(features))
            raise UserError(
                f"{name} has no feature {self._feature!r}: set config.data.feature to one of {known}"
            )
        if len(values) != 1 or not isinstance(values[0], bytes):
            raise BadImage(name, f"its feature {self._feature} is not one value of bytes")
        return _decoded(values[0], name)


class TfdsImages:
    """An image feature of a TFDS dataset; images are named `SPLIT/NUMBER`.

    Args:
      where: `NAME:SPLIT`; TFDS finds its data folder itself (`TFDS_DATA_DIR`).
      feature: the name of the image feature.

    Raises:
      UserError: TFDS is not installed, does not know the dataset, or cannot read it in random order.
    """

    def __init__(self, where: str, feature: str):
        name, _, split = where.partition(":")
        if not split:
            raise UserError(f"{_TFDS}{where} names no split: write {_TFDS}{where}:train")
        try:
            # An optional dependency: importing it on top would make it everyone's.
            tfds: Any = importlib.import_module("tensorflow_datasets")
        except ImportError as error:
            raise UserError(
                f"{_TFDS}{where} needs TensorFlow Datasets ({error}): pip install tensorflow-datasets"
            ) from error
        try:
            # Bytes as stored: our decoder handles EXIF and transparency the same way for every source.
            decoders = {feature: tfds.decode.SkipDecoding()}
            self._items: Any = tfds.data_source(
                name, split=split, decoders=decoders, download=False
            )
        except (NotImplementedError, AssertionError, ValueError, KeyError, OSError) as error:
            first = str(error).strip().split("\n", 1)[0]
            raise UserError(
                f"{_TFDS}{where} with feature {feature!r} cannot be read in any order ({first}): build it first "
                "with file_format=array_record, or name its TFRecord files"
            ) from error
        self._feature, self._where = feature, where
        self.names = [f"{split}/{i:08d}" for i in range(len(self._items))]

    def load(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Decodes image `index`; see `Images`."""
        value, name = self._items[index][self._feature], f"{_TFDS}{self._where}/{index:08d}"
        if isinstance(value, bytes):
            return _decoded(value, name)
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[-1] not in (1, 3):
            raise BadImage(name, f"{value.dtype}{value.shape} is not an 8-bit grey or RGB image")
        # A view with the grey channel three times; RGB stays as it is.
        return np.broadcast_to(value, (*value.shape[:2], 3))


def _ranges(pattern: str) -> list[str]:
    """Expands `a-{08..10}.tar` to a-08.tar, a-09.tar, a-10.tar; several ranges multiply."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    if int(last) < int(first):
        raise UserError(
            f"the range {found[0]} in {pattern} is empty: write the smaller number first"
        )
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [path for number in numbers for path in _ranges(head + number + tail)]


def _decoded(content: bytes, name: str) -> UInt8[np.ndarray, "H W 3"]:
    try:
        return load_image(content, fit=True)  # it is resized anyway
    except BadImage as error:
        raise BadImage(name, error.why) from error
