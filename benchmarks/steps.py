"""Training steps as benchmarks compare them: each side trains some in its turn, on the same weights and batch."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from absl import flags
from agreement import require_losses
from peers.driver import Peer  # benchmarks/ is the scripts' own folder
from record import cores, versions
from turns import in_turns, timed

from lvm_jax.tasks.base import Batch, State, Task

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.1
GATE_STEPS = 3
PEER = "PyTorch"

# Trains as many steps: {"seconds", "cpu_seconds", "losses"}.
Turn = Callable[[int], dict[str, Any]]
Medians = dict[str, dict[str, float]]


def define_flags(preset: str, presets: str, *, batch: int, rounds: int, steps: int) -> None:
    """The flags of all scripts that compare training steps; the arguments are their defaults."""
    flags.DEFINE_string("preset", preset, presets)
    flags.DEFINE_integer("batch", batch, "rows of a step", lower_bound=1)
    flags.DEFINE_integer("rounds", rounds, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("steps", steps, "steps of a turn", lower_bound=1)


def make_tx(learning_rate: float = LEARNING_RATE) -> optax.GradientTransformation:
    """The optimizer of all JAX programs here."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(learning_rate, b1=0.9, b2=0.95, eps=1e-8, weight_decay=WEIGHT_DECAY),
    )


def whole_rows(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """A batch whose rows are one sentence each, all of it learnt; tokens (B, T + 1)."""
    positions = np.arange(tokens.shape[1], dtype=np.int32)
    return {
        "tokens": tokens,
        "segment_ids": np.ones_like(tokens),
        "positions": np.broadcast_to(positions, tokens.shape).copy(),
        "loss_weights": np.ones(tokens.shape, np.float32),
    }


def turn_of(advance: Callable[[], jax.Array]) -> Turn:
    """A side's turn, from a function that trains one step and gives its loss."""

    def train(steps: int) -> dict[str, Any]:
        losses: list[float] = []
        seconds = timed(lambda: losses.extend(float(advance()) for _ in range(steps)))
        return {**seconds, "losses": losses}

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


def race(
    ours: Mapping[str, Turn],
    equal: Mapping[str, Turn],
    script: str,
    folder: pathlib.Path,
    *,
    items: float,
    compiled: bool = False,
    keep_freed_memory: bool = True,
) -> tuple[Medians, dict[str, str]]:
    """Checks the losses of the peer and of those that must equal its, then all take turns.

    Args:
      ours: by name.
      equal: those of them that compute what the peer computes.
      script: of benchmarks/peers; trains the model and the batch in `folder`.
      folder: see `save_rows`.
      items: of a step.
      compiled, keep_freed_memory: of the peer.

    Returns:
      medians of items a second and CPU seconds a step, and versions.
    """
    args = flags.FLAGS
    arguments = (folder, cores(), LEARNING_RATE, WEIGHT_DECAY, int(compiled))
    with Peer(script, *arguments, keep_freed_memory=keep_freed_memory) as peer:
        theirs: dict[str, Turn] = {PEER: lambda steps: peer.ask({"steps": steps})}
        require_losses({n: turn(GATE_STEPS)["losses"] for n, turn in {**equal, **theirs}.items()})

        def rates(turn: Turn) -> dict[str, float]:
            answer = turn(args.steps)
            return {
                "items_per_second": args.steps * items / answer["seconds"],
                "cpu_seconds_per_step": answer["cpu_seconds"] / args.steps,
            }

        sides = {name: functools.partial(rates, turn) for name, turn in {**ours, **theirs}.items()}
        return in_turns(sides, args.rounds), versions(peer.versions)


def show(medians: Mapping[str, Mapping[str, float]], unit: str) -> None:
    """Prints each side and how many times as long as the first it takes, by the clock and of CPU."""
    rate, cpu = next(iter(medians.values())).values()
    for name, median in medians.items():
        print(
            f"{name}: {median['items_per_second']:,.0f} {unit}/s, ratio "
            f"{rate / median['items_per_second']:.2f}; CPU seconds a step "
            f"{median['cpu_seconds_per_step']:.4f}, ratio {median['cpu_seconds_per_step'] / cpu:.2f}"
        )
