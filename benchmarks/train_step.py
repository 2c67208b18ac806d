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
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import record  # benchmarks/ is the script's own folder
import steps
from absl import flags
from decoder_sizes import decoder
from peers import published_settings

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig, count_parameters, train_flops_per_token
from lvm_jax.parallel import runtime
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.weights import model_folder

PUBLISHED = "published settings"


def costs(compiled: jax.stages.Compiled) -> dict[str, float]:
    """FLOPs and bytes of temporaries by the compiler's count, in which a loop body counts once."""
    analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
    if not analysis or memory is None:
        raise UserError(f"{jax.default_backend()} does not count FLOPs: run this on a CPU")
    return {"flops": analysis["flops"], "temporary_bytes": memory.temp_size_in_bytes}


def start_ours(
    config: DecoderConfig, batch: int, seq_len: int, folder: pathlib.Path
) -> tuple[steps.Turn, Callable[[], dict[str, float]]]:
    """Saves a fresh model and a batch in `folder`; returns a function that trains some steps, and one for its costs."""
    task = DecoderTask(config, steps.make_tx(), seq_len=seq_len)
    state, shape = jax.jit(task.init)(jax.random.key(0)), (batch, seq_len + 1)
    task.model(state).save_pretrained(folder)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, shape).astype(np.int32)
    steps.save_rows({"tokens": tokens}, folder)
    rows = jax.device_put(steps.whole_rows(tokens))
    train, step = steps.start_task(task, state, rows)

    def counted() -> dict[str, float]:
        plain = dataclasses.replace(config, remat="none", scan_layers=False)
        unrolled = DecoderTask(plain, steps.make_tx(), seq_len=seq_len)
        abstract = jax.eval_shape(unrolled.init, jax.random.key(0))
        _, counted = steps.start_task(unrolled, abstract, rows)
        return {**costs(step), "flops": costs(counted)["flops"]}

    return train, counted


def start_published(config: Any, folder: pathlib.Path) -> tuple[steps.Turn, dict[str, float]]:
    """The same for the published settings, on the model and the batch in `folder`."""
    tokens = np.load(folder / "rows.npz")["tokens"]
    if (seq_len := tokens.shape[1] - 1) > published_settings.CHUNK:
        raise UserError(
            f"--seq_len={seq_len}: beyond {published_settings.CHUNK} the published settings loop over blocks, whose "
            "FLOPs the compiler does not count"
        )
    params = jax.device_put(model_folder.read_tensors(folder))
    tokens = jax.device_put(tokens)
    tx = steps.make_tx()
    opt = jax.jit(tx.init)(params)
    step = jax.jit(published_settings.make_step(config, tx), donate_argnums=(0, 1))
    compiled = step.lower(params, opt, tokens).compile()

    def advance() -> jax.Array:
        nonlocal params, opt
        params, opt, loss = compiled(params, opt, tokens)
        return loss

    return steps.turn_of(advance), costs(compiled)


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    if args.keep_freed_memory:
        runtime.keep_freed_memory()
    config = decoder(
        args.preset, plain=True, remat=args.remat, scan_layers=args.scan_layers, dtype="float32"
    )
    record.announce()
    tokens = args.batch * args.seq_len
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ours, count_costs = start_ours(config, args.batch, args.seq_len, folder)
        turns: dict[str, steps.Turn] = {"lvm_jax": ours}
        all_costs: dict[str, dict[str, float]] = {}
        if args.published:
            turns[PUBLISHED], published_costs = start_published(config, folder)
            all_costs = {"lvm_jax": count_costs(), PUBLISHED: published_costs}
        medians, versions = steps.race(
            turns,
            turns,
            "torch_llama.py",
            folder,
            items=tokens,
            compiled=args.compile_peer,
            keep_freed_memory=args.keep_freed_memory,
        )
    flops = train_flops_per_token(config, args.seq_len)
    model_flops = flops * tokens
    print(
        f"{args.preset}: {count_parameters(config) / 1e6:.2f}M parameters, {args.batch} x {args.seq_len} tokens, "
        f"fp32, remat {args.remat}, {record.cores()} threads, {versions}"
    )
    steps.show(medians, "tokens")
    print(f"lvm_jax: {medians['lvm_jax']['items_per_second'] * flops / 1e9:.0f} GFLOP/s")
    for name, cost in all_costs.items():
        print(
            f"{name}: compiled FLOPs over model FLOPs {cost['flops'] / model_flops:.3f}, temporary memory "
            f"{cost['temporary_bytes'] / 2**20:,.0f} MiB"
        )
    record.write(
        {
            "threads": record.cores(),
            "versions": versions,
            "medians": medians,
            "costs": all_costs,
            "model_flops": model_flops,
        }
    )


if __name__ == "__main__":
    flags.DEFINE_bool(
        "keep_freed_memory",
        True,
        "of both sides, as launch scripts do; the two programs of 100m here then need over 24 GiB",
    )
    flags.DEFINE_bool("published", True, "measure the published settings too")
    flags.DEFINE_bool("compile_peer", False, "PyTorch under torch.compile; needs a C++ compiler")
    steps.define_flags(
        "quickstart", "size of the decoder: a preset, or 15m", batch=8, rounds=6, steps=8
    )
    flags.DEFINE_string("remat", "dots", "of our side")
    flags.DEFINE_bool("scan_layers", True, "of our side")
    flags.DEFINE_integer("seq_len", 512, "tokens of a row", lower_bound=1)
    cli.run(main, required_flags=["peer_python"])
