"""How a run trains: its length, its batch, its periods, and what it does about bad steps."""

import dataclasses
from typing import Literal

from lvm_jax.errors import UserError

_SEEDS = 1 << 32


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how large, and how often. Periods are in steps; 0 means never.

    Attributes:
      steps: total updates.
      batch_size: rows of a global batch, over all hosts.
      seed: of the initialisation, the order of the data, and the key of every step; in [0, 2^32).
      log_every: steps that become one line of metrics.jsonl.
      eval_every: period of evaluations without their own. All also run after the last step.
      checkpoint_every: period of checkpoints. One is also saved after the last step and after a signal to stop.
      keep_checkpoints: how many of the newest to keep.
      keep_every_steps: checkpoints at multiples of this step stay for ever.
      on_bad_step: a step is bad if a number is not finite or, with a `spike_factor`, if the loss is above that many
        times its running mean. "stop" ends the run, "skip" skips the update.
      spike_factor: 0 judges only whether numbers are finite.
      max_skips: how many bad steps in a row may be skipped before the run stops.
      watchdog_seconds: a batch, step, checkpoint or evaluation that takes longer ends the process; 0: no limit.
      profile_steps: (first, last) step to trace, counted from 1; (0, 0) traces none.
      wandb_project: Weights & Biases project that also gets the metrics; "" for none.
      print_config: print the whole configuration at the start, or only where it is saved.
    """

    steps: int
    batch_size: int
    seed: int = 0
    log_every: int = 20
    eval_every: int = 1_000
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 2
    keep_every_steps: int = 0
    on_bad_step: Literal["stop", "skip"] = "stop"
    spike_factor: float = 0.0
    max_skips: int = 10
    watchdog_seconds: float = 1800.0
    profile_steps: tuple[int, int] = (0, 0)
    wandb_project: str = ""
    print_config: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"config.train.{name} is {getattr(self, name)}: it must be at least 1"
                )
        at_least_0 = ("eval_every", "checkpoint_every", "keep_every_steps")
        for name in (*at_least_0, "spike_factor", "max_skips", "watchdog_seconds"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"config.train.{name} is {getattr(self, name)}: it must not be negative"
                )
        # `jax.random.key` drops all bits above these: runs of two seeds would begin with the same weights.
        if not 0 <= self.seed < _SEEDS:
            raise UserError(f"config.train.seed is {self.seed}: it must be from 0 to {_SEEDS - 1}")
        first, last = self.profile_steps
        if (first, last) != (0, 0) and not 0 < first <= last:
            raise UserError(
                f"config.train.profile_steps is {self.profile_steps}: set (first, last), counted from 1, or (0, 0)"
            )
