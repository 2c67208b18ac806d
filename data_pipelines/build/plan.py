"""The plan: the fixed list of sentences that follows from a recipe and its sources' keys.

It is a pure function of (recipe, item keys): the same on every machine, with any number of workers. The launcher keeps
it in memory, about 200 bytes per sentence, and hands it to the workers one shard at a time.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import re
import types
from collections.abc import Container, Mapping
from urllib.parse import unquote

from data_pipelines.build.recipe import SPLITS, Entry, Recipe
from data_pipelines.chance import hash64, rng_of
from data_pipelines.sources import plain_source
from lvm_jax import files
from lvm_jax.data.splits import is_listed, read_held_out
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PlannedSentence:
    """One sentence of the plan.

    Attributes:
      key: unique in the data set, and the seed of every draw for this sentence. It reads `entry/epoch/item|item|...`,
        so a record says which files it was made from.
      entry: the name of the recipe's entry.
      items: keys of the items that it shows, in order.
    """

    key: str
    entry: str
    items: tuple[str, ...]


def item_keys(recipe: Recipe) -> dict[str, list[str]]:
    """Entry name -> the keys of its source's items.

    Raises:
      UserError: a source has no items or repeats a key, or two entries show the same files but would hold out
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
        if _root(one) == _root(other) and one.item_set != other.item_set:
            shared = min(set(keys[one.name]) & set(keys[other.name]), default=None)
            if shared is not None:
                raise UserError(
                    f"config.entries.{one.name} and config.entries.{other.name} both show {shared!r} of "
                    f"{getattr(plain_source(one.source), 'root', one.name)}, which could be in two splits: give both "
                    f"the same items, such as items={one.item_set!r}"
                )
    return keys


def _root(entry: Entry) -> str:
    """What an entry shows, however its path is written."""
    # A simulator has no folder; its entry's name stands in, which no other entry shares.
    return files.real(getattr(plain_source(entry.source), "root", entry.name))


def plan(
    recipe: Recipe,
    keys: Mapping[str, list[str]] | None = None,
    left_out: Mapping[str, Container[str]] = types.MappingProxyType({}),
) -> dict[str, list[PlannedSentence]]:
    """The sentences of each split, shuffled over all entries.

    Args:
      recipe: what to plan.
      keys: its `item_keys`, if listed already; listing a storage bucket takes minutes.
      left_out: item set -> keys not to use.

    Raises:
      UserError: see `item_keys`; or an entry has too few items for one sentence, or a split is empty.
    """
    # Near-duplicates go before the split: one copy in each would leak.
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
        # Over all entries, so that each shard, and any first part of the plan, has their shares.
        order = rng_of(recipe.seed, "shuffle", split).permutation(len(planned))
        plans[split] = [planned[i] for i in order]
    return plans


def key_items(key: str) -> list[str]:
    """The item keys inside a sentence key."""
    return [unquote(item) for item in key.split("/", 2)[2].split("|")]


def fingerprint(
    recipe: Recipe, plans: Mapping[str, list[PlannedSentence]], encoder_fingerprint: str
) -> str:
    """16 hex digits over everything that decides the bytes of the shards: recipe, planned sentences, encoder."""
    digest = hashlib.sha256(json.dumps(recipe.identity, sort_keys=True).encode())
    digest.update(encoder_fingerprint.encode())
    # In the plan's order, because the shards are dealt by it.
    for split in SPLITS:
        for sentence in plans[split]:
            digest.update(f"{split}\0{sentence.key}\n".encode())
    return digest.hexdigest()[:16]


def items_digest(recipe: Recipe, keys: Mapping[str, list[str]]) -> str:
    """16 hex digits over a recipe and its `item_keys`."""
    told = json.dumps([recipe.identity, keys], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _validation_items(recipe: Recipe, keys: Mapping[str, list[str]]) -> dict[str, set[str]]:
    """Item set -> the keys held out of training."""
    if recipe.held_out:
        listed = read_held_out(recipe.held_out)
        # Entries of one set may list different keys of it, so the set's keys are the union over them.
        sets: dict[str, set[str]] = {}
        for entry in recipe.entries:
            mine = {key for key in keys[entry.name] if is_listed(f"{entry.item_set}/{key}", listed)}
            sets.setdefault(entry.item_set, set()).update(mine)
        return sets
    entries: dict[str, list[Entry]] = {}
    for entry in recipe.entries:
        entries.setdefault(entry.item_set, []).append(entry)
    held_out = {}
    for name, of_set in entries.items():
        groups: dict[str, set[str]] = {}
        never_train: set[str] = set()  # names of groups
        for entry in of_set:
            for key in keys[entry.name]:
                group = _kept_together(entry.together, key)
                groups.setdefault(group, set()).add(key)
                if entry.never_train and re.fullmatch(entry.never_train, key):
                    never_train.add(group)
        # Validation needs one sentence of every entry, and the largest decides.
        at_least = max(entry.composer.max_items for entry in of_set)
        others = {group: groups[group] for group in groups if group not in never_train}
        held_out[name] = _hold_out(name, others, recipe.validation_fraction, at_least)
        held_out[name] |= set().union(*(groups[group] for group in never_train))
    return held_out


def _kept_together(pattern: str, key: str) -> str:
    match = re.fullmatch(pattern, key) if pattern else None
    return match[1] if match else key


def _hold_out(
    name: str, groups: Mapping[str, set[str]], fraction: float, at_least: int
) -> set[str]:
    """Whole groups in the order of their hashes: all below `fraction`, then more until `at_least` keys, up to half."""
    # The hash knows the group's name only: a group keeps its split when others come or go.
    half = len(set().union(*groups.values())) // 2
    held_out: set[str] = set()
    for draw, group in sorted((hash64(f"{name}\0{group}") / 2**64, group) for group in groups):
        wanted = draw < fraction or len(held_out) < at_least
        if wanted and len(held_out | groups[group]) <= half:
            held_out |= groups[group]
    return held_out


def _plan_entry(
    recipe: Recipe, entry: Entry, keys: list[str], split: str, held_out: Mapping[str, set[str]]
) -> list[PlannedSentence]:
    validation = split == "validation"
    mine = [key for key in keys if (key in held_out[entry.item_set]) == validation]
    planned = []
    for epoch in range(entry.epochs):
        # One generator per entry, split and pass: changing one entry does not regroup the others.
        rng = rng_of(recipe.seed, "plan", entry.name, split, str(epoch))
        for group in entry.composer.group(mine, rng):
            # `key_items` splits at "|" and unquotes, so both special characters are escaped in the items.
            items = "|".join(item.replace("%", "%25").replace("|", "%7C") for item in group)
            key = f"{entry.name}/{epoch}/{items}"
            planned.append(PlannedSentence(key, entry.name, group))
    # An entry may have too few items for validation, or be for validation alone; `plan` refuses a split that is empty
    # over all entries.
    if not planned and split == "train" and not entry.never_train:
        raise UserError(
            f"config.entries.{entry.name}: {len(mine)} items of {entry.source.name!r} are left for training, too few "
            f"for one sentence; add items or ask for fewer in a sentence{_classes(entry, mine)}"
        )
    return planned


def _classes(entry: Entry, keys: list[str]) -> str:
    """What a message adds if the items of a sentence must share a class."""
    class_of = getattr(entry.composer, "class_of", "")
    if not class_of or not keys:
        return ""
    matching = sum(re.fullmatch(class_of, key) is not None for key in keys)
    return f"; class_of={class_of!r} finds a class in {matching} of their keys, such as {keys[0]!r}"
