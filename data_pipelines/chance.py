"""Randomness that follows from names: the same on every machine, with any number of workers, in any order."""

import hashlib

import numpy as np


def hash64(text: str) -> int:
    """The first 64 bits of a text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def rng_of(seed: int, *names: str) -> np.random.Generator:
    """The generator of one named decision: independent of all others and of their order."""
    return np.random.default_rng([seed, hash64("\0".join(names))])
