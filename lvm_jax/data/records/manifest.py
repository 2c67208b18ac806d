"""The manifest of a data set of token ids, and the names of its files.

A data set is a folder `OUT/NAME/VERSION/` of shards `uvd_NAME-SPLIT.tfrecord-00000-of-00016`, an index beside each,
`manifest.json`, and the two JSON files that `tfds.builder_from_directory` needs to open the folder.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from etils import epath

from lvm_jax import files
from lvm_jax.config import from_mapping, to_dict
from lvm_jax.data.records.record_index import Schema
from lvm_jax.errors import UserError

FILE_NAME = "manifest.json"
SENTENCE_ENCODING = "vqgan"  # also of older manifests, which name no encoding
_NAME = re.compile(r"[a-z][a-z0-9_]*")
VERSION = re.compile(r"\d+\.\d+\.\d+")


class SplitInfo(TypedDict):
    """How much a split holds."""

    sentences: int
    images: int
    shards: int


class SourceInfo(TypedDict):
    """One source of a data set: its `Category`, its terms, and how much it gave."""

    category: int
    licence: str
    origin: str
    sentences: int
    images: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`; `encoding` says how to read a record."""

    tokenizer_fingerprint: str
    codebook_size: int
    image_size: int
    tokens_per_image: int
    splits: dict[str, SplitInfo]
    sources: dict[str, SourceInfo]
    encoding: str = SENTENCE_ENCODING

    @classmethod
    def load(cls, folder: epath.PathLike) -> "Manifest":
        """Reads `folder/manifest.json`.

        Raises:
          UserError: it is missing, is not JSON, or its keys or their types are not those of this class.
        """
        path = epath.Path(folder) / FILE_NAME
        try:
            content = files.read_json(path)
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}): build the shards again") from error
        if content is None:
            raise UserError(f"{path} does not exist: point at a folder that build_uvd wrote")
        return from_mapping(cls, content, where=str(path))

    def save(self, folder: epath.PathLike) -> None:
        """Writes `folder/manifest.json` atomically."""
        content = to_dict(self)
        if self.encoding == SENTENCE_ENCODING:
            # Sentences built again get the same manifest, byte for byte, as older versions wrote.
            del content["encoding"]
        _write_json(epath.Path(folder) / FILE_NAME, content)


def check_compatible(
    manifest: Manifest,
    *,
    codebook_size: int | None = None,
    tokenizer_fingerprint: str | None = None,
    tokens_per_image: int | None = None,
) -> None:
    """Refuses shards that another tokenizer wrote; None is not compared.

    Raises:
      UserError: names what differs, both values and the fix.
    """
    wanted = {
        "codebook_size": codebook_size,
        "tokenizer_fingerprint": tokenizer_fingerprint,
        "tokens_per_image": tokens_per_image,
    }
    differences = [
        f"{name} is {getattr(manifest, name)!r} in the shards and {value!r} in the configuration"
        for name, value in wanted.items()
        if value is not None and getattr(manifest, name) != value
    ]
    if differences:
        raise UserError(
            f"{'; '.join(differences)}: use the tokenizer that wrote the shards, or build them again with this one"
        )


def read_merged(folders: Iterable[epath.Path], encoding: str) -> Manifest:
    """The manifests of data sets that are read together, merged.

    Args:
      folders: of the data sets.
      encoding: that the reader knows.

    Raises:
      UserError: see `merge`; or a data set is in another encoding.
    """
    read = {str(folder): Manifest.load(folder) for folder in folders}
    for folder, manifest in read.items():
        if manifest.encoding != encoding:
            raise UserError(
                f"{folder} is in the encoding {manifest.encoding!r}: this loader reads {encoding!r}; build the shards "
                "with a recipe of that encoding"
            )
    return merge(read)


def merge(manifests: Mapping[str, Manifest]) -> Manifest:
    """Merges the manifests of data sets of one tokenizer; counts of a split or source in several of them add up.

    Args:
      manifests: by the folder they were read from, which errors name.

    Raises:
      UserError: two of them disagree on the tokenizer, the image size, or a source's terms.
    """
    (first_folder, first), *rest = manifests.items()
    splits = {name: dict(info) for name, info in first.splits.items()}
    sources = {name: dict(info) for name, info in first.sources.items()}
    for folder, manifest in rest:
        for name in (
            "encoding",
            "tokenizer_fingerprint",
            "codebook_size",
            "tokens_per_image",
            "image_size",
        ):
            mine, theirs = getattr(first, name), getattr(manifest, name)
            if mine != theirs:
                raise UserError(
                    f"{name} is {mine!r} in {first_folder} and {theirs!r} in {folder}: "
                    "train on shards of one tokenizer"
                )
        _add(splits, manifest.splits, counts=("sentences", "images", "shards"))
        _add(sources, manifest.sources, counts=("sentences", "images"))
    return dataclasses.replace(first, splits=splits, sources=sources)


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """A shard's file name: `uvd_NAME-SPLIT.tfrecord-00000-of-00016`.

    Raises:
      UserError: a name or split that TFDS could not parse back, or an index outside the count.
    """
    _check_name("name", name)
    _check_name("split", split)
    if not 0 <= index < count <= 99999:
        raise UserError(
            f"shard {index} of {count}: the index must be below the count, the count at most 99999"
        )
    return f"uvd_{name}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def dataset_folder(output: epath.PathLike, name: str, version: str) -> epath.Path:
    """`OUTPUT/NAME/VERSION`; a version is three numbers, such as 1.0.0.

    Raises:
      UserError: a name as `shard_name` refuses it, or another version.
    """
    _check_name("name", name)
    if not VERSION.fullmatch(version):
        raise UserError(f"version {version!r}: write three numbers, such as 1.0.0")
    return epath.Path(output) / name / version


def _check_name(what: str, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise UserError(
            f"{what} {value!r}: use lower-case letters, digits and _, beginning with a letter"
        )


def write_tfds_metadata(
    folder: epath.PathLike,
    name: str,
    version: str,
    splits: Mapping[str, Sequence[int]],
    schema: Schema,
) -> None:
    """Writes `dataset_info.json` and `features.json`, so that `tfds.builder_from_directory(folder)` works.

    Args:
      folder: of the finished shards, whose sizes it needs.
      name: NAME of `uvd_NAME`.
      version: such as "1.0.0".
      splits: split -> the number of records in each of its shards.
      schema: of the records: their features and their description.

    Raises:
      UserError: a shard is missing from the folder.
    """
    folder = epath.Path(folder)
    infos = []
    for split, lengths in splits.items():
        shards = [folder / shard_name(name, split, i, len(lengths)) for i in range(len(lengths))]
        missing = [shard for shard in shards if not shard.exists()]
        if missing:
            raise UserError(f"{missing[0]} does not exist: write every shard before the metadata")
        infos.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(shard.stat().length for shard in shards)),
                "shardLengths": [str(length) for length in lengths],
            }
        )
    _write_json(folder / "features.json", _tfds_features(schema))
    _write_json(
        folder / "dataset_info.json",
        {
            "description": schema.description,
            "fileFormat": "tfrecord",
            "name": f"uvd_{name}",
            "splits": infos,
            "version": version,
        },
    )


def _tfds_features(schema: Schema) -> dict:
    module = "tensorflow_datasets.core.features"

    def scalar(dtype: str) -> dict:
        return {
            "pythonClassName": f"{module}.scalar.Scalar",
            "tensor": {"dtype": dtype, "encoding": "none", "shape": {}},
        }

    kinds = {
        "bytes": scalar("string"),
        "list of bytes": {
            "pythonClassName": f"{module}.sequence_feature.Sequence",
            "sequence": {"feature": scalar("string"), "length": "-1"},
        },
        "int": scalar("int64"),
        "text": {"pythonClassName": f"{module}.text_feature.Text", "text": {}},
    }
    features = {name: kinds[kind] for name, kind in schema.features}
    return {
        "pythonClassName": f"{module}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _add(total: dict, more: Mapping, counts: Sequence[str]) -> None:
    for name, info in more.items():
        if name not in total:
            total[name] = dict(info)
            continue
        for key, value in info.items():
            if key in counts:
                total[name][key] += value
            elif total[name][key] != value:
                raise UserError(
                    f"source {name!r} has {key} {total[name][key]!r} in one data set and {value!r} in another: "
                    "rename one of the two sources"
                )


def _write_json(path: epath.Path, content: object) -> None:
    files.write(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
