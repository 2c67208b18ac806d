"""What readers share: their protocol, the draw of the support, and loading files that must be intact.

H, W: pixels of a picture.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from etils import epath
from jaxtyping import Int

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import Picture
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.decode import BadImage, load_ids, load_image

_Candidate = TypeVar("_Candidate")


class Episodes(Protocol):
    """The interface of every benchmark's reader.

    Episode i depends only on (seed, i), so hosts can divide the episodes among themselves.
    """

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """Question `index`, with `shots` pairs of support drawn by the seed."""
        ...


def take(
    reader: Episodes, count: int, *, shots: int, seed: int = 0, process: tuple[int, int] = (0, 1)
) -> list[Episode]:
    """This process's share of the first `count` episodes; `process` is (index, number of processes)."""
    index, processes = process
    return [reader.episode(i, shots=shots, seed=seed) for i in range(index, count, processes)]


def draw_support(
    candidates: Sequence[_Candidate], shots: int, seed: tuple[int, int], what: str
) -> list[_Candidate]:
    """Draws `shots` different candidates with the seed.

    Raises:
      UserError: there are fewer; `what` names their origin in the message.
    """
    if len(candidates) < shots:
        raise UserError(
            f"{what} has {len(candidates)} images beside the query: lower shots from {shots} to that"
        )
    chosen = np.random.default_rng(seed).choice(len(candidates), shots, replace=False)
    return [candidates[i] for i in chosen]


def load(file: epath.PathLike) -> Picture:
    """Loads a picture of a data set.

    Raises:
      UserError: it cannot be read. Skipping it would change the benchmark.
    """
    try:
        return load_image(file)
    except BadImage as error:
        raise UserError(f"the data set is damaged: {error}; download the file again") from error


def read_ids(file: epath.PathLike) -> Int[np.ndarray, "H W"]:
    """The ids, not the colours, of a palette or grey PNG; VOC's void is 255, which is no class.

    Raises:
      UserError: the file is not a picture of ids.
    """
    try:
        return load_ids(file)
    except BadImage as error:
        raise UserError(f"the data set is damaged: {error}; download the file again") from error


def load_with_ids(
    file: epath.PathLike, mask: epath.PathLike
) -> tuple[Picture, Int[np.ndarray, "H W"]]:
    """`load` and `read_ids` of a picture and its mask.

    Raises:
      UserError: as they, or the two have different sizes.
    """
    picture, ids = load(file), read_ids(mask)
    if ids.shape != picture.shape[:2]:
        sizes = f"{ids.shape[1]}x{ids.shape[0]}", f"{picture.shape[1]}x{picture.shape[0]}"
        raise UserError(
            f"the data set is damaged: {mask} is {sizes[0]} pixels, its picture {sizes[1]}; download them again"
        )
    return picture, ids
