"""A recipe: which sources become which sentences, how often, in which split and encoding.

`plan` derives the list of sentences from it. Recipes are read from the config files in `data_pipelines/configs`.
"""

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from data_pipelines import documents, in_context, sentences, sources
from data_pipelines.annotators import ANNOTATORS
from data_pipelines.sentences import Composer
from data_pipelines.sources import Annotated, Source, plain_source
from lvm_jax import config as config_lib
from lvm_jax.errors import UserError

SOURCES = {**sources.SOURCES, **documents.SOURCES, **in_context.SOURCES}
COMPOSERS = {**sentences.COMPOSERS, **documents.COMPOSERS, **in_context.COMPOSERS}
SPLITS = ("train", "validation")
DEFAULT_ENCODING = "vqgan"
# The folders that a config file may ask the user for; beside `images` it may ask for `images_licence`.
FOLDERS = ("root", "images", "videos", "pairs", "cutouts", "backgrounds", "meshes")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the mix: a source, a composer, and how many passes.

    Attributes:
      name: unique in the recipe; sentence keys begin with it.
      source: where the items come from.
      composer: makes a sentence out of them.
      epochs: passes over the items; each pass regroups them and draws afresh.
      items: the name of the item set. Entries that show the same photographs in different ways name the same set, so
        that a photograph is in the same split for all of them. Empty: the source's own name.
      together: a regular expression. Items whose keys match it with the same first group, such as cuts of one film,
        share a split. Empty: each item stands alone.
      never_train: a regular expression. Items whose keys match it are in validation, with all that `together` keeps
        with them in any entry of the item set: objects of classes that training must not see, with their photographs.
    """

    name: str
    source: Source
    composer: Composer
    epochs: int = 1
    items: str = ""
    together: str = ""
    never_train: str = ""

    @property
    def item_set(self) -> str:
        """The name of its item set."""
        return self.items or self.source.name


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the contents of the shards, except the weights of the encoding's model.

    Attributes:
      name, version: of the data set to write.
      entries: the mix.
      image_size: side of the square that each picture is resized to; "vqgan" needs the tokenizer's own size. 0 leaves
        pictures as they are, for "image_text".
      encoding: a name in `encoding.ENCODINGS`.
      resize: "squash" changes the aspect ratio (the paper's evaluation); "center" keeps the middle of the long side.
      max_images: the most images in a sentence; a row has room for (seq_len - 1) // tokens_per_image.
      train_shards, validation_shards: files per split; fewer if the split has fewer sentences.
      held_out: a text file that names the validation items, one `ITEM SET/KEY` per line, or a folder above some (see
        `lvm_jax.data.splits`). It overrides validation_fraction and each entry's `together`.
      validation_fraction: of the items of each set. A hash of set and key picks them, so an item keeps its split when
        the set grows. A small set gives at least enough for one sentence, but never more than half of its items.
      seed: of every random draw.
      max_bad_items: how many unreadable or unfit items may be skipped; one more is an error.
      near_duplicates: drops an item if its pictures differ from another item of its set in at most this many of the 64
        bits of a perceptual hash (see `near_duplicates`). 4 finds resized and recompressed copies. Every item is
        decoded once more, before the pipeline begins. None keeps all items.
    """

    name: str
    entries: tuple[Entry, ...]
    image_size: int
    encoding: str = DEFAULT_ENCODING
    version: str = "1.0.0"
    resize: Literal["squash", "center"] = "squash"
    max_images: int = 16
    train_shards: int = 16
    validation_shards: int = 1
    held_out: str = ""
    validation_fraction: float = 0.01
    seed: int = 0
    max_bad_items: int = 0
    near_duplicates: int | None = None

    def __post_init__(self):
        if not 0 < self.validation_fraction <= 0.5:
            raise UserError(
                f"config.validation_fraction is {self.validation_fraction}: above 0 and at most 0.5"
            )
        if min(self.train_shards, self.validation_shards) < 1:
            raise UserError("config.train_shards and config.validation_shards must be at least 1")
        if self.seed < 0:
            raise UserError(f"config.seed is {self.seed}: at least 0")
        if self.max_bad_items < 0:
            raise UserError(f"config.max_bad_items is {self.max_bad_items}: at least 0")
        sources = {}
        never_train = [entry.name for entry in self.entries if entry.never_train]
        if self.held_out and never_train:
            raise UserError(
                f"config.held_out names the validation items, and so does config.entries.{never_train[0]}.never_train: "
                "use one of the two"
            )
        for entry in self.entries:
            if sources.setdefault(entry.source.name, entry.source) != entry.source:
                raise UserError(
                    f"config.entries.{entry.name}: another source is already named {entry.source.name!r}; rename one"
                )
            _check_entry(entry)
            if entry.composer.max_images > self.max_images:
                raise UserError(
                    f"config.entries.{entry.name} makes sentences of {entry.composer.max_images} images, the limit "
                    f"config.max_images is {self.max_images}: lower its pairs, frames or views"
                )

    def shards(self, split: str) -> int:
        """The most files that a split is written to."""
        return {"train": self.train_shards, "validation": self.validation_shards}[split]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the bytes of the shards depend on, as plain JSON; only the limit on bad items is left out."""
        fields = config_lib.to_dict(dataclasses.replace(self, entries=()))
        fields.pop("max_bad_items")
        if self.encoding == DEFAULT_ENCODING:
            # Builds begun before recipes named an encoding keep their fingerprint and can go on.
            fields.pop("encoding")
        fields["entries"] = {
            entry.name: {
                "source": _with_kinds(entry.source),
                "composer": _with_kinds(entry.composer),
                "epochs": entry.epochs,
                "items": entry.item_set,
                "together": entry.together,
                # Left out where it says nothing: builds begun before there was such a field can go on.
                **({"never_train": entry.never_train} if entry.never_train else {}),
            }
            for entry in self.entries
        }
        # A round trip turns tuples into lists, so that this equals what is read back from the build's notes.
        return json.loads(json.dumps(fields, default=str))


def from_config(config: Any) -> Recipe:
    """A recipe from a ConfigDict or dict as the files in `data_pipelines/configs` build it.

    `entries` maps names to `{source: {kind, ...}, annotators: {role: {kind, ...}}, composer: {kind, ...}}` with
    optional `epochs`, `items`, `together` and `never_train`. Kinds are looked up in `SOURCES`, `ANNOTATORS` and
    `COMPOSERS`. The top-level keys in `FOLDERS`, and their licences, are the config file's own: it has built its
    entries from them. An entry whose source has `root=""` is dropped, as the user gave no folder for it.

    Raises:
      UserError: an unknown key or kind (the message suggests the nearest), a value of the wrong type, or no entry left.
    """
    fields = dict(config.to_dict() if hasattr(config, "to_dict") else config)
    declared = fields.pop("entries", {})
    folders = [key for key in FOLDERS if key in fields]
    # Sorted, because the order of entries decides the shuffle and a dict's order should not.
    entries = tuple(
        _entry(name, entry) for name, entry in sorted(declared.items()) if not _lacks_folder(entry)
    )
    if not entries:
        raise UserError(
            "the recipe has no entry with a folder: give one, such as "
            + " or ".join(f"--config.{key}=DIR" for key in folders or ["entries.NAME.source.root"])
        )
    kept = {k: v for k, v in fields.items() if k.removesuffix("_licence") not in FOLDERS}
    return config_lib.from_mapping(Recipe, {**kept, "entries": entries})


@dataclasses.dataclass(frozen=True)
class _Declared:
    """An entry as a config file writes it."""

    source: dict[str, Any]
    composer: dict[str, Any]
    annotators: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 1
    items: str = ""
    together: str = ""
    never_train: str = ""


def _lacks_folder(declared: Any) -> bool:
    """Whether an entry asks for a folder that the user did not give; `_entry` refuses what is no mapping."""
    source = declared.get("source") if isinstance(declared, Mapping) else None
    return isinstance(source, Mapping) and source.get("root") == ""


def _check_entry(entry: Entry) -> None:
    where = f"config.entries.{entry.name}"
    _compiled(entry.never_train, f"{where}.never_train")
    if entry.together and not _compiled(entry.together, f"{where}.together").groups:
        raise UserError(
            f"{where}.together is {entry.together!r}: it needs a (group) for what is shared"
        )
    seed = getattr(plain_source(entry.source), "seed", 0)
    if seed < 0:
        raise UserError(f"{where}.source.seed is {seed}: at least 0")
    if "/" in entry.name:
        raise UserError(f"{where}: a name may not hold a slash")
    if entry.epochs < 1:
        raise UserError(
            f"{where}.epochs is {entry.epochs}: at least 1; remove the entry to leave it out"
        )


def _compiled(pattern: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{where} is no regular expression: {error}") from error


def _entry(name: str, fields: Mapping[str, Any]) -> Entry:
    where = f"config.entries.{name}"
    declared = config_lib.from_mapping(_Declared, fields, where)
    source = _build(declared.source, SOURCES, f"{where}.source")
    if declared.annotators:
        annotators = tuple(
            (role, _build(fields, ANNOTATORS, f"{where}.annotators.{role}"))
            for role, fields in sorted(declared.annotators.items())
        )
        source = Annotated(source, annotators)
    composer = _build(declared.composer, COMPOSERS, f"{where}.composer")
    return Entry(
        name,
        source,
        composer,
        declared.epochs,
        declared.items,
        declared.together,
        declared.never_train,
    )


def _with_kinds(part: Any) -> Any:
    """A source, composer or annotator as plain dicts, with its class name as `kind`."""
    if dataclasses.is_dataclass(part):
        fields = {f.name: _with_kinds(getattr(part, f.name)) for f in dataclasses.fields(part)}
        return {"kind": type(part).__name__, **fields}
    return [_with_kinds(p) for p in part] if isinstance(part, tuple | list) else part


def _build(declared: Mapping[str, Any], table: Mapping[str, type], where: str) -> Any:
    if "kind" not in declared:
        raise UserError(f"{where} needs a kind, one of {', '.join(sorted(table))}")
    fields = dict(declared)
    kind = fields.pop("kind")
    if kind not in table:
        close = difflib.get_close_matches(str(kind), table, n=1) or [", ".join(sorted(table))]
        raise UserError(f"{where}.kind is {kind!r}; did you mean {close[0]}?")
    return config_lib.from_mapping(table[kind], fields, where)
