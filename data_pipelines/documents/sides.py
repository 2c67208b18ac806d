"""Seen and held out: which texts, fonts and templates an item may be made of.

A text is held out by a stable hash of itself, fonts and templates by lists. So a held-out item shares nothing with a
seen one, and `verify` proves it from the facets in the records.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from data_pipelines.chance import rng_of
from data_pipelines.items import Text
from lvm_jax.data import shuffle
from lvm_jax.data.splits import stable_fraction
from lvm_jax.errors import UserError

# For `together` of a recipe's entry: all held-out items share a split, and as the smaller group that is validation.
HELD_OUT = r"(seen|held_out)/.*"
_TRIES = 10_000
_AT_ONCE = 64  # places of a permutation that are computed together

T = TypeVar("T")


def rendered_keys(count: int, held_out: int) -> list[str]:
    """The keys of a rendered source, sorted.

    Raises:
      UserError: there would be no held-out items, or not fewer than seen ones.
    """
    # Validation takes the smaller of two groups: of equal ones it might take the seen.
    if not 0 < held_out < count:
        raise UserError(
            f"held_out is {held_out} and count {count}: hold out at least one item, and fewer than are seen"
        )
    return [
        *(f"held_out/{i:07d}" for i in range(held_out)),
        *(f"seen/{i:07d}" for i in range(count)),
    ]


def is_held_out(key: str) -> bool:
    """Whether a key of `rendered_keys` is of the held-out side."""
    return key.startswith("held_out/")


def item_rng(seed: int, name: str, key: str) -> np.random.Generator:
    """The generator of one item of a source."""
    return rng_of(seed, "render", name, key)


def check_fraction(fraction: float) -> None:
    """Refuses a share of held-out texts that leaves one side empty."""
    if not 0 < fraction < 1:
        raise UserError(f"held_out_texts is {fraction}: a share of the texts, above 0 and below 1")


def of_side(
    texts: Sequence[str], key: str, fraction: float, rng: np.random.Generator
) -> Iterator[str]:
    """The texts that an item may show, each once, in a random order.

    Raises:
      UserError: there is none.
    """
    held_out, found = is_held_out(key), False
    # Place by place: a page takes a few texts of a corpus that may have millions.
    order = int(rng.integers(1 << 62))
    for first in range(0, len(texts), _AT_ONCE):
        places = np.arange(first, min(first + _AT_ONCE, len(texts)))
        keys = shuffle.keys(np.full(len(places), order))
        for place in shuffle.shuffled(places, len(texts), keys).tolist():
            text = texts[int(place)]
            if (stable_fraction(text) < fraction) == held_out:
                found = True
                yield text
    if not found:
        side = "held out" if held_out else "seen"
        raise UserError(
            f"no text of {len(texts)} is {side} with held_out_texts={fraction}: give more texts, or another share"
        )


def drawn_text(draw: Callable[[], str], key: str, fraction: float) -> str:
    """Draws texts until one is on the key's side.

    Raises:
      UserError: it never is: the texts that can be drawn are too few.
    """
    held_out = is_held_out(key)
    for _ in range(_TRIES):
        text = draw()
        if (stable_fraction(text) < fraction) == held_out:
            return text
    side = "held out" if held_out else "seen"
    raise UserError(f"none of {_TRIES} drawn texts is {side}: give more texts, or longer lines")


def choices(seen: Sequence[T], held_out: Sequence[T], key: str) -> Sequence[T]:
    """What an item may choose from; without a list of held-out ones both sides share the others."""
    return held_out if held_out and is_held_out(key) else seen


def check_apart(what: str, seen: Sequence[str], held_out: Sequence[str]) -> None:
    """Refuses lists with a common entry, or nothing to choose from."""
    if not seen:
        raise UserError(f"{what} is empty: name at least one")
    both = sorted(set(seen) & set(held_out))
    if both:
        raise UserError(f"{both[0]!r} is in {what} and in held_out_{what}: keep it in one")


def facets(texts: Sequence[str], **others: str) -> list[Text]:
    """What may not be in two splits, for the record: a hash of each text, and others that are not empty."""
    hashes = [hashlib.sha256(text.encode()).hexdigest()[:12] for text in texts]
    told = [f"text={h}" for h in dict.fromkeys(hashes)]
    return [Text(f) for f in (*told, *(f"{n}={value}" for n, value in others.items() if value))]
