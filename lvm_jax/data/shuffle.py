"""Random permutations of any length, evaluated element by element: no table, any number of elements at once.

A permutation of 0..n-1 is a bijection of b-bit integers, 2^b >= n, whose results outside the range are sent through it
again until they fall inside (cycle walking, Black and Rogaway 2002, section 3). The bijection is four rounds of an odd
multiplication, an addition and a xor-shift, all modulo 2^b; its constants are a hash of the key.
"""

import numpy as np
from jaxtyping import Int64, UInt64

_ROUNDS = 4
_GOLDEN = 0x9E3779B97F4A7C15


def keys(
    *parts: "int | Int64[np.ndarray, ' n'] | UInt64[np.ndarray, ' n']",
) -> UInt64[np.ndarray, " n"]:
    """A 64-bit hash of its parts, elementwise: `keys(seed, epochs)`. Each part is non-negative."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = _mix(key + np.asarray(part).astype(np.uint64) + np.uint64(_GOLDEN))
    return key


def shuffled(
    position: Int64[np.ndarray, " n"],
    length: Int64[np.ndarray, " n"] | int,
    key: UInt64[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """Where element `position` of 0..length-1 goes under the permutation `key`; elementwise, time and memory O(n).

    Args:
      position: in 0..length-1.
      length: at least 1, at most 2^62.
      key: names the permutation, see `keys`.
    """
    x, length, key = np.broadcast_arrays(
        np.asarray(position).astype(np.uint64), np.asarray(length).astype(np.uint64), key
    )
    bits = np.frexp((length - np.uint64(1)).astype(np.float64))[1].astype(np.uint64)
    mask = (np.uint64(1) << np.maximum(bits, np.uint64(1))) - np.uint64(1)
    shift = np.maximum((bits + np.uint64(1)) // np.uint64(2), np.uint64(1))
    found = np.empty(x.shape, np.uint64)
    left = np.arange(x.size)
    while left.size:
        x = _permute(x, mask, shift, key)
        inside = x < length
        found[left[inside]] = x[inside]
        again = ~inside
        left, x, length, mask, shift, key = (a[again] for a in (left, x, length, mask, shift, key))
    return found.astype(np.int64)


def _permute(x: np.ndarray, mask: np.ndarray, shift: np.ndarray, key: np.ndarray) -> np.ndarray:
    for number in range(_ROUNDS):
        constant = _mix(key + np.uint64(number + 1) * np.array([_GOLDEN], np.uint64))
        x = (x * (constant | np.uint64(1)) + (constant >> np.uint64(32))) & mask
        x = x ^ (x >> shift)
    return x


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
