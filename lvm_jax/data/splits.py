"""Which items are held out: by a list that comes with the data, or by a stable hash of the item's name.

A list is a text file of paths relative to the data's root, one a line, such as `photos/cat.webp` or `scenes/00007`; a
folder stands for everything in it. Tokenizer, shards and evaluation read the same list, so nothing is evaluated on what
it was trained on.
"""

import hashlib
import os
import posixpath
from collections.abc import Sequence

import numpy as np
from etils import epath

from lvm_jax.errors import UserError


def stable_fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone: the same on every machine, even as the set grows."""
    # Not `hash`: Python salts it anew in each process. A name in a tar need not be UTF-8.
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def read_held_out(path: epath.PathLike) -> frozenset[str]:
    """The paths in a list of held-out items, without the `./` and the last `/` that tools and people write.

    Raises:
      UserError: no such file, an empty one, or one that is no UTF-8.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise UserError(
            f"the list of held-out items {path} does not exist: name a text file, one path a line"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows's editors write a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(
            f"the list of held-out items {path} is not UTF-8 ({error}): save it as UTF-8"
        ) from error
    # A line that names nothing is no error, as a list may serve several sets: so each must mean what it seems to.
    lines = (line.strip() for line in text.splitlines())
    found = frozenset(posixpath.normpath(line) for line in lines if line)
    if not found:
        raise UserError(f"the list of held-out items {path} is empty: name at least one")
    return found


def is_listed(name: str, held_out: frozenset[str]) -> bool:
    """Whether a list has the name, a path with `/`, or a folder above it."""
    parts = name.split("/")
    return any("/".join(parts[: i + 1]) in held_out for i in range(len(parts)))


def split_numbers(
    files: Sequence[str], root: epath.PathLike, held_out: frozenset[str] | None, fraction: float
) -> tuple[list[int], list[int]]:
    """The numbers of the training files and of the held-out ones, each ascending.

    Args:
      files: paths below `root`, each once.
      root: what the list's paths are relative to.
      held_out: the list; None takes `fraction` of the files by hash: at least four, or half if there are fewer than 8.
      fraction: of the files, without a list; in (0, 1).

    Raises:
      UserError: a side of the split would be empty.
    """
    names = [os.path.relpath(file, root).replace(os.sep, "/") for file in files]
    if held_out is None:
        # The lowest hashes, not all below `fraction`: that gives the exact number, and never none of a small set.
        by_hash = sorted(range(len(files)), key=lambda number: stable_fraction(names[number]))
        at_least = max(1, min(4, len(files) // 2))  # one image says little, and may be broken
        chosen = set(by_hash[: max(at_least, round(fraction * len(files)))])
    else:
        chosen = {number for number, name in enumerate(names) if is_listed(name, held_out)}
    train = [number for number in range(len(files)) if number not in chosen]
    if not train or not chosen:
        raise UserError(
            f"{root} holds {len(train)} images for training and {len(chosen)} held out: it needs both; add images"
        )
    return train, sorted(chosen)


def spread(total: int, limit: int) -> np.ndarray:
    """At most `limit` evenly spaced indices of 0..total - 1; all of them if `limit` is 0."""
    if limit <= 0 or total <= limit:
        return np.arange(total)
    return np.linspace(0, total - 1, limit).round().astype(int)
