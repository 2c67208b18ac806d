r"""The training step of the quickstart's decoder: tokens/s beside PyTorch + transformers, in turns, in one run.

    python benchmarks/train_step.py --peer_python=OTHER_ENVIRONMENT/bin/python

A step is forward, backward, clipping to norm 1 and AdamW, in fp32, on rows of 513 tokens. OTHER_ENVIRONMENT has torch
and transformers (`pip install torch transformers`, apart from this project's). It opens the folder saved by this side,
so both train the same weights on the same batch, and before anything is timed the losses of the first steps must agree.
Run it on an idle machine: PyTorch's threads wait for each other, and one that lost its core delays all.
"""

import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from absl import flags
from peers.driver import Peer  # benchmarks/ is the script's own folder
from turns import in_turns

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.models.llama_config import count_parameters, train_flops_per_token
from lvm_jax.tasks.next_token import NextTokenTask

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.1
GATE_STEPS, GATE_TOLERANCE = 3, 1e-3

Turn = Callable[[int], dict[str, Any]]


def start_ours(preset: str, batch: int, seq_len: int, folder: pathlib.Path) -> Turn:
    """Saves a fresh model and a batch into `folder`; returns what trains that model some steps further."""
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(LEARNING_RATE, b1=0.9, b2=0.95, eps=1e-8, weight_decay=WEIGHT_DECAY),
    )
    task = NextTokenTask(presets.llama(preset), tx, seq_len=seq_len)
    state, key = jax.jit(task.init)(jax.random.key(0)), jax.random.key(1)
    task.model(state).save_pretrained(folder)
    tokens = (
        np.random.default_rng(0)
        .integers(0, task.config.vocab_size, (batch, seq_len + 1))
        .astype(np.int32)
    )
    np.save(folder / "tokens.npy", tokens)
    positions = np.broadcast_to(np.arange(seq_len + 1, dtype=np.int32), tokens.shape)
    rows = jax.device_put(
        {"tokens": tokens, "segment_ids": np.ones_like(tokens), "positions": positions}
    )
    step = jax.jit(task.step, donate_argnums=0).lower(state, rows, key).compile()

    def train(steps: int) -> dict[str, Any]:
        nonlocal state
        begin, cpu_begin, losses = time.perf_counter(), time.process_time(), []
        for _ in range(steps):
            state, metrics = step(state, rows, key)
            losses.append(float(metrics["loss"].compute()))
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses}

    return train


def check_losses(ours: list[float], theirs: list[float]) -> None:
    """Requires two runs of the same steps to agree.

    Raises:
      UserError: they do not; timing them would compare two programs that compute different things.
    """
    gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(
        f"losses of {len(ours)} steps agree within {gap:.1e} nats: {', '.join(f'{x:.5f}' for x in ours)}"
    )
    if gap > GATE_TOLERANCE:
        raise UserError(
            f"losses differ by {gap:.2e}, more than {GATE_TOLERANCE}: ours {ours}, PyTorch {theirs}"
        )


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    config = presets.llama(args.preset)
    print(f"{threads} cores, load average {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        train = start_ours(args.preset, args.batch, args.seq_len, path)
        arguments = (path, path / "tokens.npy", threads, LEARNING_RATE, WEIGHT_DECAY)
        with Peer(args.peer_python, "torch_llama.py", *arguments) as peer:
            gate = {"steps": GATE_STEPS}
            check_losses(train(GATE_STEPS)["losses"], peer.ask(gate)["losses"])

            def rates(answer: dict[str, Any]) -> dict[str, float]:
                return {
                    "tokens_per_second": args.steps * args.batch * args.seq_len / answer["seconds"],
                    "cpu_seconds_per_step": answer["cpu_seconds"] / args.steps,
                }

            medians = in_turns(
                {
                    "lvm_jax": lambda: rates(train(args.steps)),
                    "PyTorch": lambda: rates(peer.ask({"steps": args.steps})),
                },
                args.rounds,
            )
    (rate, cpu), (peer_rate, peer_cpu) = (m.values() for m in medians.values())
    flops = train_flops_per_token(config, args.seq_len)
    versions = peer.versions | {"jax": jax.__version__, "python": sys.version.split()[0]}
    print(
        f"{args.preset}: {count_parameters(config) / 1e6:.2f}M parameters, {args.batch} x {args.seq_len} tokens, "
        f"fp32, {threads} threads, {versions}\n"
        f"lvm_jax {rate:,.0f} tokens/s ({rate * flops / 1e9:.0f} GFLOP/s), PyTorch {peer_rate:,.0f}: "
        f"ratio {rate / peer_rate:.2f}\n"
        f"CPU seconds a step: {cpu:.3f} and {peer_cpu:.3f}, ratio {peer_cpu / cpu:.2f}"
    )
    if args.output:
        record = {
            "threads": threads,
            "versions": versions,
            "ratio": rate / peer_rate,
            "medians": medians,
        }
        pathlib.Path(args.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("peer_python", None, "a Python interpreter with torch and transformers")
    flags.DEFINE_alias("peer-python", "peer_python")
    flags.DEFINE_string("preset", "quickstart", "decoder of lvm_jax.models.presets")
    flags.DEFINE_integer("batch", 8, "rows of a step", lower_bound=1)
    flags.DEFINE_integer("seq_len", 512, "tokens of a row", lower_bound=1)
    flags.DEFINE_integer("rounds", 6, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("steps", 8, "steps of a turn", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    cli.run(main, required_flags=["peer_python"])
