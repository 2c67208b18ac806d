"""Random permutations of any length, evaluated element by element: no table, any number of elements at once.

A permutation of 0..n-1 is a bijection of b-bit integers, 2^b >= n; a result outside the range goes through it again
until it falls inside (cycle walking, Black and Rogaway 2002, section 3). The bijection is four rounds of an odd
multiplication, an addition and a xor-shift, all modulo 2^b; its constants are a hash of the key.

Shape legend: N elements.
"""

import numpy as np
from jaxtyping import Int64, UInt64

_ROUNDS = 4
_GOLDEN = 0x9E3779B97F4A7C15


def keys(
    *parts: "int | Int64[np.ndarray, ' N'] | UInt64[np.ndarray, ' N']",
) -> UInt64[np.ndarray, " N"]:
    """An elementwise 64-bit hash of non-negative integers, such as `keys(seed, passes)`."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = _mix(key + np.asarray(part).astype(np.uint64) + np.uint64(_GOLDEN))
    return key


def shuffled(
    position: Int64[np.ndarray, " N"],
    length: Int64[np.ndarray, " N"] | int,
    key: UInt64[np.ndarray, " N"],
) -> Int64[np.ndarray, " N"]:
    """Where element `position` of 0..length-1 goes under the permutation `key`; elementwise, time and memory O(n).

    Args:
      position: in 0..length-1.
      length: at least 1, at most 2^62.
      key: chooses the permutation; see `keys`.
    """
    x, length, key = np.broadcast_arrays(
        np.asarray(position).astype(np.uint64), np.asarray(length).astype(np.uint64), key
    )
    # frexp's exponent is the bit length. Above 2^53, rounding may give one bit more: slower, but still a permutation.
    bits = np.frexp((length - np.uint64(1)).astype(np.float64))[1].astype(np.uint64)
    mask = (np.uint64(1) << np.maximum(bits, np.uint64(1))) - np.uint64(1)
    shift = np.maximum((bits + np.uint64(1)) // np.uint64(2), np.uint64(1))
    found = np.empty(x.shape, np.uint64)
    left = np.arange(x.size)
    # 2^b is less than twice the length, so each turn brings more than half of the rest inside on average.
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
        # Only an odd factor can be inverted modulo 2^b.
        x = (x * (constant | np.uint64(1)) + (constant >> np.uint64(32))) & mask
        # A product carries low bits upwards only; the shift brings the high half back down.
        x = x ^ (x >> shift)
    return x


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
