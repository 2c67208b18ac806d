"""What a recipe is: the way from a configuration to everything that the training loop is given."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from etils import epath
from jax.sharding import Mesh

from lvm_jax.parallel.mesh import MeshConfig
from lvm_jax.tasks.base import State, Task
from lvm_jax.training.loop import Batches, Evaluation, Every, TrainConfig


class Experiment(Protocol):
    """What the configurations of all recipes share; each recipe's own is a frozen dataclass with more fields."""

    @property
    def recipe(self) -> str:
        """The recipe's name, as the table has it."""
        ...

    @property
    def train(self) -> TrainConfig:
        """How long, how large, how often."""
        ...

    @property
    def mesh(self) -> MeshConfig:
        """How the devices are laid out."""
        ...


E = TypeVar("E", bound=Experiment)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to train: its data is open, and its mistakes are found.

    Attributes:
      task: what a step is.
      batches: the training data.
      mesh: the devices.
      evaluations: measured or drawn while it trains.
      record: for config.json: the whole experiment, and what is needed to know the run again.
      export: (final state, folder) writes the trained model; called once, at the end.
      warm_start: what a fresh state becomes before the first step; None: nothing.
    """

    task: Task
    batches: Batches
    mesh: Mesh
    evaluations: Sequence[Evaluation | Every]
    record: Mapping[str, Any]
    export: Callable[[State, epath.Path], None]
    warm_start: Callable[[State], State] | None = None


@dataclasses.dataclass(frozen=True)
class Recipe(Generic[E]):
    """One way to train: for a system, what its configuration is and what is built from it.

    Attributes:
      experiment: the frozen dataclass that a config file fills.
      make_task: the task alone, which needs neither data nor devices: enough to compile a step.
      prepare: everything else, for a run in the workdir. Call it once the processes of all hosts have joined.
    """

    experiment: type[E]
    make_task: Callable[[E], Task]
    prepare: Callable[[E, epath.Path], Run]
