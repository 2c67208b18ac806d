"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import dataclasses
import functools

from etils import epath

from data_pipelines.annotators.base import once_per_process
from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem
from data_pipelines.sources.images import decode_image
from data_pipelines.sources.masks import draw_mask, read_mask
from lvm_jax import files
from lvm_jax.data.records import example
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.listing import existing_folder


@dataclasses.dataclass(frozen=True)
class TfdsFolder:
    """The examples of one split of `root` = `DATA_DIR/NAME/VERSION` or `DATA_DIR/NAME/CONFIG/VERSION`.

    `tfds build NAME` (or `tfds.load`) prepares such a folder, by default as TFRecords; after that, TensorFlow is not
    needed. Shards without an offset index get one beside them. Image features are encoded pictures; a sequence of them,
    or a video, gives its frames. Name nested features by their path, `a/b`. Keys are `shard/number`, or
    `class/shard/number` with `class_feature`: listing those reads every example once.

    Attributes:
      split: as in the shards' file names.
      roles: (role, feature) pairs.
      masks: roles that hold indexed masks, drawn in colours; `n_ids` and `ignore` as in `PairedFiles`.
      class_feature: an integer feature that begins the key, by name if TFDS stored names, for the composer `category`
        with `class_of="([^/]+)/.*"`.
    """

    root: str
    split: str = "train"
    roles: tuple[tuple[str, ...], ...] = (("image", "image"),)
    masks: tuple[str, ...] = ()
    n_ids: int = maps.MAX_IDS
    ignore: int | None = None
    class_feature: str = ""
    name: str = "tfds"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self):
        if not self.roles or any(len(role) != 2 for role in self.roles):
            raise UserError(f"roles is {self.roles}: it must hold (role, feature) pairs")
        maps.palette(self.n_ids)  # raises if there is no such palette

    def keys(self) -> list[str]:
        """One key per example; see `Source`.

        Raises:
          UserError: there is no such split, or a shard is damaged.
        """
        folder = existing_folder(self.root, "TFDS data set")
        shards = sorted(
            path
            for path in files.named(folder, f"*-{self.split}.tfrecord*")
            # Our own offset indices lie beside the shards.
            if not path.name.endswith(".index")
        )
        if not shards:
            raise UserError(
                f"{self.root} holds no shard of split {self.split!r} as TFRecords: give a version's folder, such as "
                "DATA_DIR/mnist/3.0.1"
            )
        found = []
        for path in shards:
            shard = _open(str(path))
            found += [self._class_of(shard, i) + f"{path.name}/{i:07d}" for i in range(len(shard))]
        return sorted(found)

    def load(self, key: str) -> PictureItem:
        """The pictures of one example; see `Source`."""
        *_, shard, number = key.split("/")
        try:
            features = example.decode(_open(str(epath.Path(self.root) / shard))[int(number)])
        except example.CorruptRecord as error:
            raise BadItem(key, f"is damaged ({error})") from error
        item: PictureItem = {}
        for role, feature in self.roles:
            values = features.get(feature, [None])
            encoded = [value for value in values if isinstance(value, bytes)]
            # Not a BadItem: a wrong feature name would fail for every example.
            if len(encoded) < len(values):
                known = ", ".join(sorted(features))
                raise UserError(
                    f"{self.root} has no encoded pictures in {feature!r}: its features are {known}"
                )
            if not encoded:
                raise BadItem(key, f"has an empty {feature!r}")
            if role in self.masks:
                item[role] = [
                    draw_mask(read_mask(content, key), self.n_ids, self.ignore, key)
                    for content in encoded
                ]
            else:
                item[role] = [decode_image(content, key, feature) for content in encoded]
        return item

    def _class_of(self, shard: RecordFile, i: int) -> str:
        """`class/` of an example; empty without `class_feature`."""
        if not self.class_feature:
            return ""
        values = example.decode(shard[i]).get(self.class_feature)
        if not values or not isinstance(values[0], int):
            raise UserError(
                f"{self.root} has no integer feature {self.class_feature!r} in example {i}"
            )
        names = _class_names(self.root, self.class_feature)
        return (names[values[0]] if 0 <= values[0] < len(names) else str(values[0])) + "/"


@once_per_process
def _open(path: str) -> RecordFile:
    return RecordFile(path)


@functools.cache
def _class_names(root: str, feature: str) -> tuple[str, ...]:
    """The class names, if TFDS stored them beside the shards; else empty."""
    path = epath.Path(root) / f"{feature}.labels.txt"
    if not path.is_file():
        return ()
    return tuple(line.strip().replace("/", "_") for line in path.read_text().splitlines())
