r"""The training step of unified's decoder: tokens/s against GPT-2 with Mixtral's block in PyTorch, in turns.

    taskset -c 1 python benchmarks/unified_step.py --peer_python=OTHER_ENVIRONMENT/bin/python

The decoder of a preset as published (learned positions, experts in every second block, two a token), in fp32 without
dropout: forward, backward, clipping to norm 1 and AdamW, on rows of three examples and a query. Our ways:
  no limit    token router, every choice finds room: Mixtral's function, whose losses must agree before any timing
  capacity    token router, capacity factor 1.25
  spans       attribute router, outputs mixed: what the quickstart has
  dense       no experts
OTHER_ENVIRONMENT has torch and transformers.
"""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

import jax
import numpy as np
from absl import flags
from steps import (  # benchmarks/ is the script's own folder
    GATE_STEPS,
    Turn,
    check_losses,
    compare,
    cores,
    make_tx,
    save_rows,
    show,
    start_peer,
    start_task,
)

from lvm_jax import cli
from lvm_jax.models import presets
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.parallel import runtime
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.vocabulary import Vocabulary

PAIRS = 4
NO_LIMIT = "no limit"


def make_configs(
    preset: str,
    experts: int,
    codes: int,
    remat: str,
    sizes: tuple[int, int, int] = (512, 512, 65),
) -> dict[str, DecoderConfig]:
    """Way -> its decoder; `sizes` are ids of text, codes and bins. Mixtral divides gates by their sum, so all do."""
    vocabulary = Vocabulary.unified(*sizes)
    # The balance loss is no part of the comparison.
    token = MoEConfig(experts=experts, renormalize=True, balance_weight=0.0)
    spans = (codes + 1, codes + 2)
    plain = presets.unified(
        preset,
        vocabulary,
        **dict.fromkeys(("dropout", "embedding_dropout", "attention_dropout"), 0.0),
        attention="auto",
        remat=remat,
        moe=dataclasses.replace(token, capacity_factor=0.0),
    )
    by_span = dataclasses.replace(token, router="attribute", dispatch="spans", spans=spans)
    return {
        NO_LIMIT: plain,
        "capacity": dataclasses.replace(plain, moe=token),
        "spans": dataclasses.replace(plain, moe=by_span),
        "dense": dataclasses.replace(plain, mlps=("gelu_tanh",)),
    }


def make_rows(vocab_size: int, batch: int, codes: int) -> dict[str, Any]:
    """Random tokens, and attributes that are equal within each span."""
    length = PAIRS * (2 * codes + 3)
    tokens = np.random.default_rng(0).integers(0, vocab_size, (batch, length)).astype(np.int32)
    spans = np.arange(2 * PAIRS, dtype=np.int32).repeat([codes + 1, codes + 2] * PAIRS)
    return {
        "tokens": tokens,
        "segment_ids": np.ones_like(tokens),
        "positions": np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape).copy(),
        "loss_weights": np.ones(tokens.shape, np.float32),
        "attributes": np.broadcast_to(spans, tokens.shape).copy(),
    }


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    configs = make_configs(args.preset, args.experts, args.codes, args.remat)
    rows = make_rows(configs[NO_LIMIT].vocab_size, args.batch, args.codes)
    length = rows["tokens"].shape[1] - 1
    print(f"{cores()} cores, load average {os.getloadavg()[0]:.1f} before the start")
    turns: dict[str, Turn] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        save_rows({"tokens": rows["tokens"]}, folder)
        for way, config in configs.items():
            task = DecoderTask(config, make_tx(), seq_len=length)
            state = jax.jit(task.init)(jax.random.key(0))
            if way == NO_LIMIT:
                task.model(state).save_pretrained(folder)
            turns[way] = start_task(task, state, jax.device_put(rows))[0]
        with start_peer(args.peer_python, "torch_unified.py", folder) as peer:
            turns["PyTorch"] = lambda steps: peer.ask({"steps": steps})
            check_losses({way: turns[way](GATE_STEPS)["losses"] for way in (NO_LIMIT, "PyTorch")})
            medians = compare(turns, args.steps, args.rounds, args.batch * length)
    versions = peer.versions | {"jax": jax.__version__, "python": sys.version.split()[0]}
    print(f"{args.preset}: {args.experts} experts, {args.batch} x {length} tokens, {versions}")
    for way in configs:
        print(f"{way} beside PyTorch:")
        show({side: medians[side] for side in (way, "PyTorch")}, "tokens")
    if args.output:
        record = {"threads": cores(), "versions": versions, "medians": medians}
        pathlib.Path(args.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("peer_python", None, "a Python interpreter with torch and transformers")
    flags.DEFINE_string("preset", "quickstart", "decoder of lvm_jax.models.presets.unified")
    flags.DEFINE_integer("experts", 4, "of a mixture", lower_bound=2)
    flags.DEFINE_integer("codes", 64, "of a picture", lower_bound=1)
    flags.DEFINE_string("remat", "none", "of our side; what the quickstart has")
    flags.DEFINE_integer("batch", 8, "rows of a step", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("steps", 2, "steps of a turn", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    cli.run(main, required_flags=["peer_python"])
