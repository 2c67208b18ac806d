"""What a recipe is: it turns a configuration into everything that the training loop needs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from etils import epath
from jax.sharding import Mesh

from lvm_jax.errors import UserError
from lvm_jax.parallel.mesh import MeshConfig
from lvm_jax.tasks.base import State, Task
from lvm_jax.training.loop import Batches, Evaluation, Every, TrainConfig


class Experiment(Protocol):
    """What all recipes' configurations share; each recipe's own is a frozen dataclass with more fields."""

    @property
    def recipe(self) -> str:
        """The recipe's name in the table."""
        ...

    @property
    def train(self) -> TrainConfig:
        """How long, how large, how often."""
        ...

    @property
    def mesh(self) -> MeshConfig:
        """The device mesh."""
        ...


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """How a decoder's loss is computed; see `DecoderTask`."""

    z_loss: float = 0.0
    chunk: int = 0
    accumulation: int = 1

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise UserError(
                f"config.loss.accumulation is {self.accumulation}: it must be at least 1"
            )


E = TypeVar("E", bound=Experiment)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to train: its data is open, and its configuration is checked.

    Attributes:
      task: computes a step.
      batches: the training data.
      mesh: the devices.
      evaluations: what to measure or draw during training.
      record: for config.json: the whole experiment, and whatever else identifies the run at resume.
      export: (final state, folder) writes the trained model; called once, at the end.
      warm_start: changes a fresh state before the first step; None: leaves it as it is.
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
    """How to train one system: its configuration, and what is built from it.

    Attributes:
      experiment: the frozen dataclass that a config file fills.
      make_task: builds the task alone, without data or devices: enough to compile a step.
      prepare: builds the whole run in a workdir. Call it after the processes of all hosts have joined.
    """

    experiment: type[E]
    make_task: Callable[[E], Task]
    prepare: Callable[[E, epath.Path], Run]
