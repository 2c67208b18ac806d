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
import pathlib
import tempfile

import jax
import numpy as np
import record  # benchmarks/ is the script's own folder
import steps
from absl import flags

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


def row_length(codes: int) -> int:
    """Tokens of a row of pairs."""
    return PAIRS * (2 * codes + 3)


def make_rows(vocab_size: int, batch: int, codes: int) -> dict[str, np.ndarray]:
    """Random tokens, and attributes that are equal within each span."""
    shape = (batch, row_length(codes))
    tokens = np.random.default_rng(0).integers(0, vocab_size, shape).astype(np.int32)
    spans = np.arange(2 * PAIRS, dtype=np.int32).repeat([codes + 1, codes + 2] * PAIRS)
    return steps.whole_rows(tokens) | {"attributes": np.broadcast_to(spans, shape).copy()}


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    configs = make_configs(args.preset, args.experts, args.codes, args.remat)
    rows = make_rows(configs[NO_LIMIT].vocab_size, args.batch, args.codes)
    length = rows["tokens"].shape[1] - 1
    record.announce()
    turns: dict[str, steps.Turn] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        steps.save_rows({"tokens": rows["tokens"]}, folder)
        for way, config in configs.items():
            task = DecoderTask(config, steps.make_tx(), seq_len=length)
            state = jax.jit(task.init)(jax.random.key(0))
            if way == NO_LIMIT:
                task.model(state).save_pretrained(folder)
            turns[way] = steps.start_task(task, state, jax.device_put(rows))[0]
        equal = {NO_LIMIT: turns[NO_LIMIT]}
        items = args.batch * length
        medians, versions = steps.race(turns, equal, "torch_unified.py", folder, items=items)
    print(f"{args.preset}: {args.experts} experts, {args.batch} x {length} tokens, {versions}")
    for way in configs:
        print(f"{way} beside PyTorch:")
        steps.show({side: medians[side] for side in (way, steps.PEER)}, "tokens")
    record.write({"threads": record.cores(), "versions": versions, "medians": medians})


if __name__ == "__main__":
    steps.define_flags(
        "quickstart", "decoder of lvm_jax.models.presets.unified", batch=8, rounds=3, steps=2
    )
    flags.DEFINE_integer("experts", 4, "of a mixture", lower_bound=2)
    flags.DEFINE_integer("codes", 64, "of a picture", lower_bound=1)
    flags.DEFINE_string("remat", "none", "of our side; what the quickstart has")
    cli.run(main, required_flags=["peer_python"])
