"""Batches whose answers get longer while a run goes on: what a small model reads first are short texts."""

from collections.abc import Iterator, Sequence

from lvm_jax.data.image_text.loader import ImageTextLoader
from lvm_jax.data.step_loader import HostBatch
from lvm_jax.errors import UserError

Stage = tuple[int, int]  # the step that it begins at, the longest answer in characters (0: any)


def check_stages(stages: Sequence[Stage]) -> None:
    """Requires stages that begin at step 0 and follow each other.

    Raises:
      UserError: they do not.
    """
    begins = [begin for begin, _ in stages]
    if not begins or begins[0] != 0 or begins != sorted(set(begins)):
        raise UserError(
            f"the stages are {tuple(stages)}: give (step, longest answer) for each, the first at step 0, in order"
        )


class Curriculum:
    """Endless batches; that of step s is the one that the loader of its stage has at s.

    Args:
      loaders: (step that a stage begins at, its loader), in order; see `check_stages`.
    """

    def __init__(self, loaders: Sequence[tuple[int, ImageTextLoader]]) -> None:
        self._loaders = list(loaders)
        self._step = 0

    def __iter__(self) -> Iterator[HostBatch]:
        return self

    def __next__(self) -> HostBatch:
        loader = self._loader(self._step)
        if loader.get_state() != self._step:
            loader.set_state(self._step)
        batch = next(loader)
        self._step += 1
        return batch

    def get_state(self) -> int:
        """The next step."""
        return self._step

    def set_state(self, step: int) -> None:
        """Continues at `step`, whatever was read before."""
        self._loader(step).set_state(step)
        self._step = step

    def close(self) -> None:
        """Stops reading ahead; it cannot be used afterwards."""
        for _, loader in self._loaders:
            loader.close()

    def _loader(self, step: int) -> ImageTextLoader:
        return next(loader for begin, loader in reversed(self._loaders) if begin <= max(step, 0))
