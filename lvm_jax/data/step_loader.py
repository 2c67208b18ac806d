"""Order and resume: the batch of step s is a pure function of (seed, s), and a loader's state is s.

grain is imported where it is used: the import takes half a second, which a program that only decodes images need not
pay.
"""

import abc
import sys
from types import TracebackType
from typing import Any

import numpy as np

from lvm_jax.data import shuffle
from lvm_jax.data.dealing import check_seed
from lvm_jax.errors import UserError

HostBatch = dict[str, np.ndarray]  # the rows of a global batch that this process feeds


def shuffled_index(index: int, length: int, seed: int) -> int:
    """Element `index` of an endless stream of passes over 0..length-1, each shuffled anew; O(1) memory and time."""
    number, position = divmod(index, length)
    return int(shuffle.shuffled(np.array([position]), length, shuffle.keys(seed, number))[0])


def slice_of_batch(global_batch: int, process_index: int, process_count: int) -> range:
    """The rows of a global batch that belong to this process.

    Raises:
      UserError: the batch does not divide over the processes, or `process_index` is out of range.
    """
    if global_batch < 1 or global_batch % process_count:
        raise UserError(
            f"global_batch is {global_batch}: it must be a positive multiple of the {process_count} processes"
        )
    if not 0 <= process_index < process_count:
        raise UserError(f"process_index is {process_index}: it must be in 0..{process_count - 1}")
    rows = global_batch // process_count
    return range(process_index * rows, (process_index + 1) * rows)


class StepLoader(abc.ABC):
    """An endless iterator of host-local batches whose state is one integer; grain reads ahead of the training step.

    A global batch is `global_batch` consecutive elements of one global order, and each process takes its slice: the
    global batch of a step does not depend on the number of processes.
    """

    def __init__(
        self,
        *,
        seed: int,
        global_batch: int,
        process_index: int,
        process_count: int,
        threads: int,
        prefetch: int,
    ):
        import grain

        check_seed(seed)
        self.seed = seed
        self.global_batch = global_batch
        self._slice = slice_of_batch(global_batch, process_index, process_count)
        self._step = 0
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=max(prefetch, threads)
        )
        # Prefetch whole batches: handing single rows between threads costs more than reading them.
        self._batches: Any = iter(grain.MapDataset.source(_Steps(self)).to_iter_dataset(options))

    @abc.abstractmethod
    def batch_at(self, step: int) -> HostBatch:
        """This process's rows of the global batch of `step`; safe to call from any thread."""

    def indices_at(self, step: int) -> range:
        """The places of this process's rows of `step` in the global order."""
        first = step * self.global_batch
        return range(first + self._slice.start, first + self._slice.stop)

    def __iter__(self) -> "StepLoader":
        return self

    def __next__(self) -> HostBatch:
        try:
            batch = next(self._batches)
        except BaseException:  # also Ctrl-C
            # grain has already moved on. Rewind it, so that the next call meets the same step and the same error.
            self.set_state(self._step)
            raise
        self._step += 1
        return batch

    def get_state(self) -> int:
        """The next step."""
        return self._step

    def set_state(self, step: int) -> None:
        """Continues at `step`, whatever was read before.

        Raises:
          UserError: a negative step.
        """
        if step < 0:
            raise UserError(f"data state is {step}: it is the next step, 0 or more")
        self._batches.set_state({"next_index": step})
        self._step = step

    def close(self) -> None:
        """Stops reading ahead; the loader cannot be used afterwards."""
        self._batches.close()

    def __enter__(self) -> "StepLoader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Steps:
    """A loader as grain sees it: element s is the batch of step s."""

    def __init__(self, loader: StepLoader):
        self._loader = loader

    def __len__(self) -> int:
        return sys.maxsize  # grain asks for a length; the series has no end

    def __getitem__(self, index: int) -> HostBatch:
        return self._loader.batch_at(index)
