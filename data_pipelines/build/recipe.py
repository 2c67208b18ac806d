"""A recipe: which sources become which sentences, how often, in which split; and the plan that follows from it.

The plan is a pure function of (recipe, item keys): the same on every machine, whatever the number of workers. It is
held in the launcher's memory, about 200 bytes a sentence, and handed out to the workers a shard at a time.
"""

import collections
import dataclasses
import difflib
import hashlib
import itertools
import json
import re
import types
from collections.abc import Container, Mapping
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np

from data_pipelines.annotators import ANNOTATORS
from data_pipelines.sentences import COMPOSERS, Composer
from data_pipelines.sources import SOURCES, Annotated, Source, plain_source
from lvm_jax import config as config_lib
from lvm_jax.data.splits import read_held_out
from lvm_jax.errors import UserError

SPLITS = ("train", "validation")
FOLDERS = (
    "root",
    "images",
    "videos",
    "pairs",
    "cutouts",
    "backgrounds",
    "meshes",
)  # what a config file may ask its reader for


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the mix: a source, told as one kind of sentence, `epochs` times.

    Attributes:
      name: unique in the recipe; sentence keys begin with it.
      source: where the items come from.
      composer: what sentence they make.
      epochs: passes over the items, each freshly grouped and drawn.
      items: the set of items it draws from; entries that show the same photographs in different ways name the same
        set, and each photograph is in one split for all of them. Empty: the source's own name.
      together: a regular expression; items of the set whose keys match it with the same first group, such as cuts of
        one film, are in one split. Empty: each item by itself.
    """

    name: str
    source: Source
    composer: Composer
    epochs: int = 1
    items: str = ""
    together: str = ""

    @property
    def item_set(self) -> str:
        """The name of its set of items."""
        return self.items or self.source.name


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides what is in the shards, next to the tokenizer.

    Attributes:
      name, version: of the dataset that is written.
      entries: the mix.
      image_size: height and width of what the tokenizer sees; must be the tokenizer's own.
      resize: "squash" changes the aspect ratio (the paper's evaluation); "center" cuts the middle of the long side.
      max_images: the longest sentence that is allowed, the row's limit: (seq_len - 1) // tokens_per_image.
      train_shards, validation_shards: files of a split; at most one a sentence.
      held_out: a text file that names the validation items, `ITEM SET/KEY` a line (see `lvm_jax.data.splits`); with it,
        the next two are not used.
      validation_fraction: of the items of each set, chosen by a hash of set and key, stable when a set grows. A small
        set gives at least enough for one sentence, but never more than half of it.
      seed: of all chance.
      max_bad_items: unreadable or unfit items that may be skipped before it is an error.
      near_duplicates: leaves out items whose pictures differ from another's of their set by at most so many of the 64
        bits of a perceptual hash (see `near_duplicates`); 4 finds recompressed and resized copies. It decodes every
        item once before the pipeline begins. None keeps all.
    """

    name: str
    entries: tuple[Entry, ...]
    image_size: int
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
        sources = {}
        for entry in self.entries:
            if sources.setdefault(entry.source.name, entry.source) != entry.source:
                raise UserError(
                    f"config.entries.{entry.name}: another source is already named {entry.source.name!r}; rename one"
                )
            try:
                groups = re.compile(entry.together).groups
            except re.error as error:
                raise UserError(
                    f"config.entries.{entry.name}.together is no regular expression: {error}"
                ) from error
            if entry.together and not groups:
                raise UserError(
                    f"config.entries.{entry.name}.together is {entry.together!r}: it needs a (group) for what is shared"
                )
            if "/" in entry.name:
                raise UserError(f"config.entries.{entry.name}: a name may not hold a slash")
            if entry.epochs < 1:
                raise UserError(
                    f"config.entries.{entry.name}.epochs is {entry.epochs}: at least 1; remove the "
                    "entry to leave it out"
                )
            if entry.composer.max_images > self.max_images:
                raise UserError(
                    f"config.entries.{entry.name} makes sentences of {entry.composer.max_images} images, the limit "
                    f"config.max_images is {self.max_images}: lower its pairs, frames or views"
                )

    def shards(self, split: str) -> int:
        """Files of a split."""
        return {"train": self.train_shards, "validation": self.validation_shards}[split]

    def identity(self) -> dict[str, Any]:
        """What the bytes of the shards depend on, as plain JSON: everything but the limit on bad items."""
        fields = config_lib.to_dict(dataclasses.replace(self, entries=()))
        fields.pop("max_bad_items")
        fields["entries"] = {
            entry.name: {
                "source": _with_kinds(entry.source),
                "composer": _with_kinds(entry.composer),
                "epochs": entry.epochs,
                "items": entry.item_set,
                "together": entry.together,
            }
            for entry in self.entries
        }
        return json.loads(json.dumps(fields, default=str))


@dataclasses.dataclass(frozen=True)
class SentencePlan:
    """One sentence to be: `key` is unique in the dataset and seeds its chance.

    The key reads `entry/epoch/item|item|...`, so a record tells which files it was made of.
    """

    key: str
    entry: str
    items: tuple[str, ...]


def from_config(config: Any) -> Recipe:
    """A recipe from a ConfigDict or dict as the files in `data_pipelines/configs` build it.

    `entries` maps a name to `{source: {kind, ...}, annotators: {role: {kind, ...}}, composer: {kind, ...}}` and, if
    wanted, `epochs`, `items`, `together`; kinds are looked up in `SOURCES`, `ANNOTATORS` and `COMPOSERS`. Top-level
    keys of `FOLDERS` belong to the config file, which built its entries from them.
    An entry whose source has `root=""` is left out: the reader gave no folder for it.

    Raises:
      UserError: an unknown key or kind (the nearest is named), a value of a wrong type, or no entry left.
    """
    fields = dict(config.to_dict() if hasattr(config, "to_dict") else config)
    declared = fields.pop("entries", {})
    folders = [key for key in FOLDERS if key in fields]
    entries = tuple(
        _entry(name, entry)
        for name, entry in sorted(declared.items())
        if entry.get("source", {}).get("root") != ""
    )
    if not entries:
        raise UserError(
            "the recipe has no entry with a folder: give one, such as "
            + " or ".join(f"--config.{key}=DIR" for key in folders or ["entries.NAME.source.root"])
        )
    kept = {key: value for key, value in fields.items() if key not in folders}
    return config_lib.from_mapping(Recipe, {**kept, "entries": entries})


def item_keys(recipe: Recipe) -> dict[str, list[str]]:
    """Entry -> the keys of its source's items.

    Raises:
      UserError: a source without items, or with two of one key; or entries that show the same files but would hold out
        different ones.
    """
    keys = {entry.name: entry.source.keys() for entry in recipe.entries}
    for entry in recipe.entries:
        mine, where = keys[entry.name], f"config.entries.{entry.name}: source {entry.source.name!r}"
        if not mine:
            raise UserError(f"{where} has no items")
        if len(set(mine)) < len(mine):
            twice = next(key for key, count in collections.Counter(mine).items() if count > 1)
            raise UserError(
                f"{where} has the key {twice!r} twice: every item needs a key of its own"
            )
    for one, other in itertools.combinations(recipe.entries, 2):
        roots = {getattr(plain_source(entry.source), "root", entry.name) for entry in (one, other)}
        if len(roots) == 1 and one.item_set != other.item_set:
            shared = min(set(keys[one.name]) & set(keys[other.name]), default=None)
            if shared is not None:
                raise UserError(
                    f"config.entries.{one.name} and config.entries.{other.name} both show {shared!r} of {roots.pop()}, "
                    f"which could be in two splits: give both the same items, such as items={one.item_set!r}"
                )
    return keys


def plan(
    recipe: Recipe,
    keys: Mapping[str, list[str]] | None = None,
    left_out: Mapping[str, Container[str]] = types.MappingProxyType({}),
) -> dict[str, list[SentencePlan]]:
    """The sentences of each split, shuffled over all entries.

    Args:
      recipe: what to plan.
      keys: its `item_keys`, if they were listed already.
      left_out: item set -> keys that are not used.

    Raises:
      UserError: as `item_keys`; too few items for an entry's sentences, or an empty split.
    """
    listed = item_keys(recipe) if keys is None else keys
    keys = {
        entry.name: [k for k in listed[entry.name] if k not in left_out.get(entry.item_set, ())]
        for entry in recipe.entries
    }
    held_out = _validation_items(recipe, keys)
    plans = {
        split: [
            sentence
            for entry in recipe.entries
            for sentence in _plan_entry(recipe, entry, keys[entry.name], split, held_out)
        ]
        for split in SPLITS
    }
    for split, planned in plans.items():
        if not planned:
            raise UserError(
                f"split {split!r} has no sentences: its sources have too few items; add items, or ask for fewer in a "
                "sentence"
            )
        order = rng_of(recipe.seed, "shuffle", split).permutation(len(planned))
        plans[split] = [planned[i] for i in order]
    return plans


def rng_of(seed: int, *names: str) -> np.random.Generator:
    """The generator of one named decision: independent of every other, and of the order in which they are made."""
    return np.random.default_rng([seed, _hash64("\0".join(names))])


def key_items(key: str) -> list[str]:
    """The item keys inside a sentence key."""
    return [unquote(item) for item in key.split("/", 2)[2].split("|")]


def fingerprint(
    recipe: Recipe, plans: Mapping[str, list[SentencePlan]], tokenizer_fingerprint: str
) -> str:
    """16 hex digits over all that decides the bytes of the shards: recipe, planned items, tokenizer."""
    digest = hashlib.sha256(json.dumps(recipe.identity(), sort_keys=True).encode())
    digest.update(tokenizer_fingerprint.encode())
    for split in SPLITS:
        for sentence in plans[split]:
            digest.update(f"{split}\0{sentence.key}\n".encode())
    return digest.hexdigest()[:16]


def digest(recipe: Recipe, keys: Mapping[str, list[str]]) -> str:
    """16 hex digits over a recipe and its `item_keys`."""
    told = json.dumps([recipe.identity(), keys], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Declared:
    """An entry as a config file writes it."""

    source: dict[str, Any]
    composer: dict[str, Any]
    annotators: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 1
    items: str = ""
    together: str = ""


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
    return Entry(name, source, composer, declared.epochs, declared.items, declared.together)


def _with_kinds(part: Any) -> Any:
    """A source, composer or annotator as plain dicts, with the name of its class as `kind`."""
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


def _validation_items(recipe: Recipe, keys: Mapping[str, list[str]]) -> dict[str, set[str]]:
    """Item set -> the keys held out of training."""
    if recipe.held_out:
        listed = read_held_out(recipe.held_out)
        sets: dict[str, set[str]] = {}
        for entry in recipe.entries:
            mine = {key for key in keys[entry.name] if f"{entry.item_set}/{key}" in listed}
            sets.setdefault(entry.item_set, set()).update(mine)
        return sets
    entries: dict[str, list[Entry]] = {}
    for entry in recipe.entries:
        entries.setdefault(entry.item_set, []).append(entry)
    held_out = {}
    for name, of_set in entries.items():
        groups: dict[str, set[str]] = {}
        for entry in of_set:
            for key in keys[entry.name]:
                groups.setdefault(_kept_together(entry.together, key), set()).add(key)
        at_least = max(entry.composer.max_items for entry in of_set)
        held_out[name] = _hold_out(name, groups, recipe.validation_fraction, at_least)
    return held_out


def _kept_together(pattern: str, key: str) -> str:
    match = re.fullmatch(pattern, key) if pattern else None
    return match[1] if match else key


def _hold_out(
    name: str, groups: Mapping[str, set[str]], fraction: float, at_least: int
) -> set[str]:
    """Whole groups by their hashes: all below `fraction`, then the next until there are enough, up to half."""
    half = len(set().union(*groups.values())) // 2
    held_out: set[str] = set()
    for draw, group in sorted((_hash64(f"{name}\0{group}") / 2**64, group) for group in groups):
        wanted = draw < fraction or len(held_out) < at_least
        if wanted and len(held_out | groups[group]) <= half:
            held_out |= groups[group]
    return held_out


def _plan_entry(
    recipe: Recipe, entry: Entry, keys: list[str], split: str, held_out: Mapping[str, set[str]]
) -> list[SentencePlan]:
    validation = split == "validation"
    mine = [key for key in keys if (key in held_out[entry.item_set]) == validation]
    planned = []
    for epoch in range(entry.epochs):
        rng = rng_of(recipe.seed, "plan", entry.name, split, str(epoch))
        for group in entry.composer.plan(mine, rng):
            items = "|".join(item.replace("%", "%25").replace("|", "%7C") for item in group)
            key = f"{entry.name}/{epoch}/{items}"
            planned.append(SentencePlan(key, entry.name, group))
    if not planned and split == "train":
        raise UserError(
            f"config.entries.{entry.name}: {len(mine)} items of {entry.source.name!r} are left for training, too few "
            "for one sentence; add items or ask for fewer in a sentence"
        )
    return planned


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
