"""Near-duplicate images of a set of items, found by a perceptual hash.

The hash is a pHash: the picture's luma brought to 32 x 32 by area, its cosine transform, and of the 8 x 8 lowest
frequencies a bit each: whether it is above their median. It survives resizing, compression and changes of brightness;
pictures that were cropped or mirrored are not duplicates. Of the 128 photographs of the embedded corpus, copies at
half the size as JPEG 70 are at most 4 bits away, other photographs at least 16. Clips are compared by their first,
middle and last frame.

The result is a pure function of the pictures and the keys: of near pictures the first in the order of the keys stays.
"""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import UInt8

from data_pipelines.sources import BadItem, Source, plain_source
from data_pipelines.sources.derived import ANNOTATED_ROLES
from lvm_jax.errors import UserError

BITS = 64
MAX_DISTANCE = 16
Hashes = tuple[int, ...]


def perceptual_hash(image: UInt8[np.ndarray, "H W 3"]) -> int:
    """64 bits, from the lowest frequency on, row by row; see above."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(small)[:8, :8].ravel()
    bits = lowest > np.median(lowest[1:])  # the first is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_duplicates(hashes: Mapping[str, Hashes], max_distance: int) -> dict[str, str]:
    """Key that goes -> key that stays, of items whose hashes all differ by at most `max_distance` bits.

    An item goes if it is near one that stays, in the order of the keys; items near only to one that goes stay.

    Raises:
      UserError: a distance out of range.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise UserError(
            f"near_duplicates is {max_distance}: it is a number of the hash's {BITS} bits, 0 to {MAX_DISTANCE}"
        )
    # Of max_distance + 1 bands, two hashes that differ in max_distance bits share at least one.
    edges = np.linspace(0, BITS, max_distance + 2).astype(int)
    bands = [(int(low), (1 << int(high - low)) - 1) for low, high in itertools.pairwise(edges)]
    kept: dict[tuple[int, int, int], list[str]] = collections.defaultdict(list)
    gone: dict[str, str] = {}
    for key in sorted(hashes):
        mine = hashes[key]
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
    """The hashes of each item's pictures; items that cannot be read have none, the pipeline will name them."""
    plain = plain_source(source)

    def of(key: str) -> Hashes:
        try:
            item = plain.load(key)
        except BadItem:
            return ()
        values = next((item[role] for role in ANNOTATED_ROLES if role in item), [])
        images = [value for value in values if isinstance(value, np.ndarray)]  # the pictures
        chosen = sorted({0, len(images) // 2, len(images) - 1}) if images else []
        return tuple(perceptual_hash(images[i]) for i in chosen)

    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(keys, pool.map(of, keys), strict=True))
    return {key: hashes for key, hashes in found.items() if hashes}


def duplicates_of_sets(
    readers: Iterable[tuple[str, Source, Sequence[str]]], max_distance: int, threads: int
) -> dict[str, dict[str, str]]:
    """Item set -> key that goes -> key that stays.

    Args:
      readers: item set, a source that reads it, and its keys; of several of one set, each key is read by the first that
        has it.
      max_distance: see `find_duplicates`.
      threads: that decode.
    """
    hashes: dict[str, dict[str, Hashes]] = {}
    for name, source, keys in readers:
        of_set = hashes.setdefault(name, {})
        of_set.update(hash_items(source, [key for key in keys if key not in of_set], threads))
    return {name: find_duplicates(of_set, max_distance) for name, of_set in hashes.items()}
