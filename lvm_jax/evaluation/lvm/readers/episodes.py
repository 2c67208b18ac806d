"""What readers share: the protocol, the draw of the support, and files of a data set that must be whole.

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
    """What every reader of a benchmark offers.

    Episode i is a pure function of (seed, i), so that hosts can share the episodes out among them.
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
    """`shots` different candidates, drawn by the seed.

    Raises:
      UserError: there are fewer; `what` says what they are candidates of.
    """
    if len(candidates) < shots:
        raise UserError(
            f"{what} has {len(candidates)} images beside the query: lower shots from {shots} to that"
        )
    chosen = np.random.default_rng(seed).choice(len(candidates), shots, replace=False)
    return [candidates[i] for i in chosen]


def load(file: epath.PathLike) -> Picture:
    """A picture of a data set.

    Raises:
      UserError: it cannot be read. A benchmark that skipped pictures would be another benchmark.
    """
    try:
        return load_image(file)
    except BadImage as error:
        raise UserError(f"the data set is damaged: {error}; download the file again") from error


def read_ids(file: epath.PathLike) -> Int[np.ndarray, "H W"]:
    """The ids, not the colours, of a palette or grey PNG; VOC's void is 255, the id of no class.

    Raises:
      UserError: the file is not a picture of ids.
    """
    try:
        return load_ids(file)
    except BadImage as error:
        raise UserError(f"the data set is damaged: {error}; download the file again") from error
