r"""The decoder's training step: tokens/s against PyTorch + transformers and the published settings, in turns.

    python benchmarks/train_step.py --peer_python=OTHER_ENVIRONMENT/bin/python
    python benchmarks/train_step.py --preset=100m --batch=2 --seq_len=1024 --steps=1 --peer_python=...

The decoder is a plain LLaMA of the preset's size, because transformers' knows no more. A step is forward, backward,
clipping to norm 1 and AdamW, in fp32, on rows of seq_len + 1 tokens. OTHER_ENVIRONMENT has torch and transformers (`pip
install torch transformers`, apart from this project's). This side saves a folder that all sides open, so they train the
same weights on the same batch. Before any timing, the losses of the first steps must agree. "published settings" is a
JAX program with the remat and attention of the published LVM code (benchmarks/peers/published_settings.py);
--nopublished leaves it out, and the compiler's counts too. FLOPs are the compiler's count for the step (ours unrolled
and without remat) over the model's. Memory is the compiler's temporaries (ours as timed). Run it on an idle machine:
PyTorch's threads wait for each other, so one that loses its core delays all.
"""

import dataclasses
import functools
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
from decoder_sizes import decoder  # benchmarks/ is the script's own folder
from peers import published_settings
from peers.driver import Peer
from turns import in_turns

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import (
    DecoderConfig,
    count_parameters,
    train_flops_per_token,
)
from lvm_jax.parallel import runtime
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.weights import model_folder

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.1
GATE_STEPS, GATE_TOLERANCE = 3, 1e-3

Turn = Callable[[int], dict[str, Any]]


def make_tx() -> optax.GradientTransformation:
    """The optimizer of all JAX programs here."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(LEARNING_RATE, b1=0.9, b2=0.95, eps=1e-8, weight_decay=WEIGHT_DECAY),
    )


def costs(compiled: jax.stages.Compiled) -> dict[str, float]:
    """FLOPs and bytes of temporaries by the compiler's count, in which a loop body counts once."""
    analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
    if not analysis or memory is None:
        raise UserError(f"{jax.default_backend()} does not count FLOPs: run this on a CPU")
    return {"flops": analysis["flops"], "temporary_bytes": memory.temp_size_in_bytes}


def start_ours(
    config: DecoderConfig, batch: int, seq_len: int, folder: pathlib.Path
) -> tuple[Turn, Callable[[], dict[str, float]]]:
    """Saves a fresh model and a batch in `folder`; returns a function that trains some steps, and one for its costs."""
    task = DecoderTask(config, make_tx(), seq_len=seq_len)
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
        {
            "tokens": tokens,
            "segment_ids": np.ones_like(tokens),
            "positions": positions,
            "loss_weights": np.ones(tokens.shape, np.float32),
        }
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

    def counted() -> dict[str, float]:
        plain = dataclasses.replace(config, remat="none", scan_layers=False)
        unrolled = DecoderTask(plain, make_tx(), seq_len=seq_len)
        flops = costs(jax.jit(unrolled.step, donate_argnums=0).lower(state, rows, key).compile())
        return {**costs(step), "flops": flops["flops"]}

    return train, counted


def start_published(config: Any, folder: pathlib.Path) -> tuple[Turn, dict[str, float]]:
    """The same for the published settings, on the model and the batch in `folder`."""
    if (seq_len := np.load(folder / "tokens.npy").shape[1] - 1) > published_settings.CHUNK:
        raise UserError(
            f"--seq_len={seq_len}: beyond {published_settings.CHUNK} the published settings loop over blocks, whose "
            "FLOPs the compiler does not count"
        )
    params = jax.device_put(model_folder.read_tensors(folder))
    tokens = jax.device_put(np.load(folder / "tokens.npy"))
    tx = make_tx()
    opt = jax.jit(tx.init)(params)
    step = jax.jit(published_settings.make_step(config, tx), donate_argnums=(0, 1))
    compiled = step.lower(params, opt, tokens).compile()

    def train(steps: int) -> dict[str, Any]:
        nonlocal params, opt
        begin, cpu_begin, losses = time.perf_counter(), time.process_time(), []
        for _ in range(steps):
            params, opt, loss = compiled(params, opt, tokens)
            losses.append(float(loss))
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses}

    return train, costs(compiled)


def check_losses(losses: dict[str, list[float]]) -> None:
    """Requires runs of the same steps to agree with the first.

    Raises:
      UserError: they do not, so a timing would compare programs that compute different things.
    """
    (_, ours), *others = losses.items()
    for name, theirs in others:
        gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        print(f"losses of {len(ours)} steps agree with {name} within {gap:.1e} nats")
        if gap > GATE_TOLERANCE:
            raise UserError(
                f"losses differ by {gap:.2e}, more than {GATE_TOLERANCE}: ours {ours}, {name} {theirs}"
            )


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    if args.keep_freed_memory:
        runtime.keep_freed_memory()
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    config = decoder(
        args.preset, plain=True, remat=args.remat, scan_layers=args.scan_layers, dtype="float32"
    )
    print(f"{threads} cores, load average {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        ours, count_costs = start_ours(config, args.batch, args.seq_len, path)
        published: dict[str, Turn] = {}
        all_costs: dict[str, dict[str, float]] = {}
        if args.published:
            name = "published settings"
            published[name], published_costs = start_published(config, path)
            all_costs = {"lvm_jax": count_costs(), name: published_costs}
        arguments = (path, path / "tokens.npy", threads, LEARNING_RATE, WEIGHT_DECAY)
        arguments += (int(args.compile_peer),)
        keep = args.keep_freed_memory
        with Peer(args.peer_python, "torch_llama.py", *arguments, keep_freed_memory=keep) as peer:
            turns: dict[str, Turn] = {
                "lvm_jax": ours,
                "PyTorch": lambda steps: peer.ask({"steps": steps}),
                **published,
            }
            check_losses({name: turn(GATE_STEPS)["losses"] for name, turn in turns.items()})

            def rates(turn: Turn) -> dict[str, float]:
                answer = turn(args.steps)
                return {
                    "tokens_per_second": args.steps * args.batch * args.seq_len / answer["seconds"],
                    "cpu_seconds_per_step": answer["cpu_seconds"] / args.steps,
                }

            medians = in_turns(
                {name: functools.partial(rates, turn) for name, turn in turns.items()}, args.rounds
            )
    flops = train_flops_per_token(config, args.seq_len)
    versions = peer.versions | {"jax": jax.__version__, "python": sys.version.split()[0]}
    model_flops = flops * args.batch * args.seq_len
    print(
        f"{args.preset}: {count_parameters(config) / 1e6:.2f}M parameters, {args.batch} x {args.seq_len} tokens, "
        f"fp32, remat {args.remat}, {threads} threads, {versions}"
    )
    rate, cpu = medians["lvm_jax"].values()
    for name, median in medians.items():
        print(
            f"{name}: {median['tokens_per_second']:,.0f} tokens/s "
            f"({median['tokens_per_second'] * flops / 1e9:.0f} GFLOP/s), "
            f"ratio {rate / median['tokens_per_second']:.2f}; CPU seconds a step "
            f"{median['cpu_seconds_per_step']:.3f}, ratio {median['cpu_seconds_per_step'] / cpu:.2f}"
        )
    for name, cost in all_costs.items():
        print(
            f"{name}: compiled FLOPs over model FLOPs {cost['flops'] / model_flops:.3f}, temporary memory "
            f"{cost['temporary_bytes'] / 2**20:,.0f} MiB"
        )
    if args.output:
        record = {
            "threads": threads,
            "versions": versions,
            "medians": medians,
            "costs": all_costs,
            "model_flops": model_flops,
        }
        pathlib.Path(args.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_bool(
        "keep_freed_memory",
        True,
        "of both sides, as launch scripts do; the two programs of 100m here then need over 24 GiB",
    )
    flags.DEFINE_string("peer_python", None, "a Python interpreter with torch and transformers")
    flags.DEFINE_alias("peer-python", "peer_python")
    flags.DEFINE_bool("published", True, "measure the published settings too")
    flags.DEFINE_bool("compile_peer", False, "PyTorch under torch.compile; needs a C++ compiler")
    flags.DEFINE_string("preset", "quickstart", "size of the decoder: a preset, or 15m")
    flags.DEFINE_string("remat", "dots", "of our side")
    flags.DEFINE_bool("scan_layers", True, "of our side")
    flags.DEFINE_integer("batch", 8, "rows of a step", lower_bound=1)
    flags.DEFINE_integer("seq_len", 512, "tokens of a row", lower_bound=1)
    flags.DEFINE_integer("rounds", 6, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("steps", 8, "steps of a turn", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    cli.run(main, required_flags=["peer_python"])
