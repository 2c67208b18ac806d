"""Finds near-duplicates among the items of a set by a perceptual hash.

The hash is a pHash: luma shrunk to 32 x 32 by area, its cosine transform, and one bit for each of the 8 x 8 lowest
frequencies: is it above their median? It survives resizing, compression and changes of brightness; cropped or mirrored
pictures do not count as duplicates. Among the 128 photographs of the embedded corpus, a copy at half the size and JPEG
quality 70 is at most 4 bits away, any other photograph at least 16. Clips are compared by their first, middle and last
frame.

The result is a pure function of pictures and keys: of similar items, the first in the order of the keys stays.
"""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import UInt8

from data_pipelines.build.recipe import Recipe
from data_pipelines.sources import BadItem, Source, plain_source
from data_pipelines.sources.derived import ANNOTATED_ROLES
from lvm_jax.errors import UserError

BITS = 64
MAX_DISTANCE = 16
Hashes = tuple[int, ...]


def perceptual_hash(image: UInt8[np.ndarray, "H W 3"]) -> int:
    """64 bits, from the lowest frequency on, row by row; see the module."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(small)[:8, :8].ravel()
    bits = lowest > np.median(lowest[1:])  # the first is the mean brightness, not a frequency
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_duplicates(hashes: Mapping[str, Hashes], max_distance: int) -> dict[str, str]:
    """Key to drop -> key that stays, for items whose hashes all differ by at most `max_distance` bits.

    In the order of the keys, an item is dropped if it is near one that stays; being near a dropped item is no reason.

    Raises:
      UserError: a distance out of range.
    """
    _check_distance(max_distance)
    # Pigeonhole: hashes that differ in max_distance bits agree on at least one of max_distance + 1 bands, so only
    # items that share a band need comparing.
    edges = np.linspace(0, BITS, max_distance + 2).astype(int)
    bands = [(int(low), (1 << int(high - low)) - 1) for low, high in itertools.pairwise(edges)]
    kept: dict[tuple[int, int, int], list[str]] = collections.defaultdict(list)
    gone: dict[str, str] = {}
    for key in sorted(hashes):
        mine = hashes[key]
        # By the first hash only: all must be near, so the first must be.
        places = [
            (len(mine), band, mine[0] >> shift & mask) for band, (shift, mask) in enumerate(bands)
        ]
        near = (
            other
            for place in places
            for other in kept[place]
            if all((a ^ b).bit_count() <= max_distance for a, b in zip(mine, hashes[other]))
        )
        twin = min(near, default=None)
        if twin is not None:
            gone[key] = twin
            continue
        for place in places:
            kept[place].append(key)
    return gone


def hash_items(source: Source, keys: Sequence[str], threads: int) -> dict[str, Hashes]:
    """The hashes of each item's pictures. Unreadable items are missing: the pipeline will name them later."""
    plain = plain_source(source)  # annotations cost time and decide nothing here

    def of(key: str) -> Hashes:
        try:
            item = plain.load(key)
        except BadItem:
            return ()
        values = next((item[role] for role in ANNOTATED_ROLES if role in item), [])
        images = [value for value in values if isinstance(value, np.ndarray)]  # pictures only
        chosen = sorted({0, len(images) // 2, len(images) - 1}) if images else []
        return tuple(perceptual_hash(images[i]) for i in chosen)

    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(keys, pool.map(of, keys), strict=True))
    return {key: hashes for key, hashes in found.items() if hashes}


def duplicates_of_sets(
    readers: Iterable[tuple[str, Source, Sequence[str]]], max_distance: int, threads: int
) -> dict[str, dict[str, str]]:
    """Item set -> key to drop -> key that stays.

    Args:
      readers: (item set, a source that reads it, its keys). If several read one set, the first that has a key reads it.
      max_distance: see `find_duplicates`.
      threads: how many decode.

    Raises:
      UserError: see `find_duplicates`.
    """
    _check_distance(max_distance)  # before minutes of decoding
    hashes: dict[str, dict[str, Hashes]] = {}
    for name, source, keys in readers:
        of_set = hashes.setdefault(name, {})
        of_set.update(hash_items(source, [key for key in keys if key not in of_set], threads))
    return {name: find_duplicates(of_set, max_distance) for name, of_set in hashes.items()}


def duplicates_of_recipe(
    recipe: Recipe, keys: Mapping[str, list[str]], threads: int
) -> dict[str, dict[str, str]]:
    """`duplicates_of_sets` among a recipe's items, counted and named on the screen; empty if the recipe keeps them.

    Args:
      recipe: says how near is too near.
      keys: its `plan.item_keys`.
      threads: how many decode.

    Raises:
      UserError: see `find_duplicates`.
    """
    if recipe.near_duplicates is None:
        return {}
    readers = [(entry.item_set, entry.source, keys[entry.name]) for entry in recipe.entries]
    found = duplicates_of_sets(readers, recipe.near_duplicates, threads)
    pairs = [f"{name}/{gone} (as {kept})" for name in found for gone, kept in found[name].items()]
    print(f"left out {len(pairs)} near-duplicates" + (f": {'; '.join(pairs[:5])}" if pairs else ""))
    return found


def _check_distance(max_distance: int) -> None:
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise UserError(
            f"near_duplicates is {max_distance}: it counts bits of the {BITS}-bit hash, 0 to {MAX_DISTANCE}"
        )
