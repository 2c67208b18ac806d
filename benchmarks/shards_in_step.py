r"""What reading costs a training step: real shards against batches held in memory, in turns, in one run.

    python benchmarks/shards_in_step.py --rounds=10

The decoder of a preset trains on rows packed from a mixture of sentences in shards, and then on synthetic tokens of the
same shape in memory. Both put batches on the device as the training loop does. On a noisy machine the medians differ by
more than reading costs, so it also prints the share of a step spent waiting for a batch.
"""

import functools
import pathlib
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
import optax
from absl import flags
from token_files import CODEBOOK_SIZE, images_of, write_corpus
from turns import in_turns

from lvm_jax import cli
from lvm_jax.data.sentences.token_loader import TokenLoader
from lvm_jax.models import presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.vocabulary import Vocabulary

Batches = Iterator[dict[str, np.ndarray]]


def in_memory(batch: int, seq_len: int) -> Batches:
    """Cycles through eight batches of random codes."""
    rng = np.random.default_rng(0)
    shape = (batch, seq_len + 1)
    positions = np.broadcast_to(np.arange(seq_len + 1, dtype=np.int32), shape)
    batches = [
        {
            "tokens": rng.integers(0, CODEBOOK_SIZE, shape, np.int32),
            "segment_ids": np.ones(shape, np.int32),
            "positions": positions,
            "loss_weights": np.ones(shape, np.float32),
        }
        for _ in range(8)
    ]
    while True:
        yield from batches


def main() -> None:
    """Prints every round, and the medians with their ratio."""
    args = flags.FLAGS
    config = presets.llama(args.preset, vocab_size=Vocabulary.lvm(CODEBOOK_SIZE).size)
    task = DecoderTask(config, optax.adamw(1e-4), seq_len=args.seq_len)
    mesh = make_mesh(MeshConfig())
    placement = BatchPlacement(mesh, args.batch)
    with tempfile.TemporaryDirectory() as root, jax.set_mesh(mesh):
        longest = args.seq_len // 256
        images = np.minimum(images_of("mixed", args.sentences), longest)
        corpus = write_corpus(pathlib.Path(root), images)
        key = jax.random.key(0)
        state = jax.jit(task.init)(key)
        step = jax.jit(task.step, donate_argnums=0)
        with TokenLoader(corpus.shards, "train", args.seq_len, args.batch, seed=0) as loader:

            def steps(batches: Batches) -> dict[str, float]:
                nonlocal state
                begin, wait = time.perf_counter(), 0.0
                for _ in range(args.steps):
                    asked = time.perf_counter()
                    batch = next(batches)
                    wait += time.perf_counter() - asked
                    state, metrics = step(state, placement.put(batch), key)
                jax.block_until_ready(metrics)
                spent = time.perf_counter() - begin
                return {"seconds": spent / args.steps, "waiting": wait / args.steps}

            medians = in_turns(
                {
                    name: functools.partial(steps, batches)
                    for name, batches in (
                        ("shards", loader),
                        ("memory", in_memory(args.batch, args.seq_len)),
                    )
                },
                args.rounds,
            )
    shards, memory = medians["shards"], medians["memory"]
    print(
        f"median: shards {shards['seconds']:.4f}, memory {memory['seconds']:.4f} seconds a step, "
        f"ratio {shards['seconds'] / memory['seconds']:.3f}, waiting for shards "
        f"{shards['waiting'] / shards['seconds']:.2%} of a step; {args.preset}, "
        f"{args.batch} rows of {args.seq_len} tokens, {jax.devices()[0].device_kind}"
    )


if __name__ == "__main__":
    flags.DEFINE_string("preset", "debug", "of the decoder")
    flags.DEFINE_integer("batch", 4, "rows", lower_bound=1)
    flags.DEFINE_integer("seq_len", 1024, "inputs a row", lower_bound=256)
    flags.DEFINE_integer("sentences", 4000, "of the corpus", lower_bound=100)
    flags.DEFINE_integer("steps", 4, "of each source, each round", lower_bound=1)
    flags.DEFINE_integer("rounds", 10, "of both sources", lower_bound=1)
    cli.run(main)
