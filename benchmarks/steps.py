"""Training steps as benchmarks compare them: each side trains some in its turn, on the same weights and batch."""

import functools
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from peers.driver import Peer  # benchmarks/ is the scripts' own folder
from turns import in_turns

from lvm_jax.errors import UserError
from lvm_jax.tasks.base import Batch, State, Task

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.1
GATE_STEPS, GATE_TOLERANCE = 3, 1e-3
FIRST_TOLERANCE = 1e-4  # of the first step, whose loss no update has touched yet

# Trains as many steps: {"seconds", "cpu_seconds", "losses"}.
Turn = Callable[[int], dict[str, Any]]


def make_tx() -> optax.GradientTransformation:
    """The optimizer of all JAX programs here."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(LEARNING_RATE, b1=0.9, b2=0.95, eps=1e-8, weight_decay=WEIGHT_DECAY),
    )


def turn_of(advance: Callable[[], jax.Array]) -> Turn:
    """A side's turn, from a function that trains one step and gives its loss."""

    def train(steps: int) -> dict[str, Any]:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        losses = [float(advance()) for _ in range(steps)]
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses}

    return train


def start_task(task: Task, state: State, rows: Batch) -> tuple[Turn, jax.stages.Compiled]:
    """A task's turn on one batch, and its compiled step; the state is donated."""
    key = jax.random.key(1)
    step = jax.jit(task.step, donate_argnums=0).lower(state, rows, key).compile()

    def advance() -> jax.Array:
        nonlocal state
        state, metrics = step(state, rows, key)
        return metrics["loss"].compute()

    return turn_of(advance), step


def save_rows(rows: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes a batch where the peers read it."""
    np.savez(folder / "rows.npz", **rows)


def start_peer(
    python: str,
    script: str,
    folder: pathlib.Path,
    *,
    compiled: bool = False,
    keep_freed_memory: bool = True,
) -> Peer:
    """A peer of benchmarks/peers that trains the model and the batch in `folder`."""
    arguments = (folder, cores(), LEARNING_RATE, WEIGHT_DECAY, int(compiled))
    return Peer(python, script, *arguments, keep_freed_memory=keep_freed_memory)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_losses(losses: Mapping[str, list[float]]) -> None:
    """Requires runs of the same steps to agree with the first.

    Raises:
      UserError: they do not, so a timing would compare programs that compute different things.
    """
    (_, ours), *others = losses.items()
    for name, theirs in others:
        gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        print(f"losses of {len(ours)} steps agree with {name} within {max(gaps):.1e} nats")
        if gaps[0] > FIRST_TOLERANCE or max(gaps) > GATE_TOLERANCE:
            raise UserError(
                f"losses differ by {gaps[0]:.1e} in the first step and {max(gaps):.1e} later, more than "
                f"{FIRST_TOLERANCE} and {GATE_TOLERANCE}: ours {ours}, {name} {theirs}"
            )


def compare(
    turns: Mapping[str, Turn], steps: int, rounds: int, items: float
) -> dict[str, dict[str, float]]:
    """Medians of items a second and CPU seconds a step, turn by turn; `items` are those of a step."""

    def rates(turn: Turn) -> dict[str, float]:
        answer = turn(steps)
        return {
            "items_per_second": steps * items / answer["seconds"],
            "cpu_seconds_per_step": answer["cpu_seconds"] / steps,
        }

    return in_turns({name: functools.partial(rates, turn) for name, turn in turns.items()}, rounds)


def show(medians: Mapping[str, Mapping[str, float]], unit: str) -> None:
    """Prints each side and how many times as long as the first it takes, by the clock and of CPU."""
    rate, cpu = next(iter(medians.values())).values()
    for name, median in medians.items():
        print(
            f"{name}: {median['items_per_second']:,.0f} {unit}/s, ratio "
            f"{rate / median['items_per_second']:.2f}; CPU seconds a step "
            f"{median['cpu_seconds_per_step']:.4f}, ratio {median['cpu_seconds_per_step'] / cpu:.2f}"
        )
