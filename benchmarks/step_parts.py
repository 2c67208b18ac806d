r"""Where the CPU time of a decoder's training step goes: milliseconds, share and GFLOP/s of each part.

    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false taskset -c 1 python benchmarks/step_parts.py --preset=small

Each part is a program of its own, the forward and backward pass on arrays of the step's shapes, and counts as often as
the step has layers. Parts and the whole step take turns; medians count. Time is CPU time, so other load on the machine
disturbs little. "rest" is what the step needs beyond its parts: embeddings, looking back, what a scan stacks. FLOPs are
those of matrix products, as MFU counts them, and for Muon those of Newton-Schulz; the peak is a product of 1024 x 1024.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from decoder_sizes import decoder  # benchmarks/ is the script's own folder
from flax import nnx
from turns import in_turns

from lvm_jax import cli
from lvm_jax.losses.next_token import cross_entropy
from lvm_jax.models.attention.attend import attend
from lvm_jax.models.decoder.config import DecoderConfig, count_parameters, train_flops_per_token
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.linear import linear
from lvm_jax.models.decoder.stack import unstack
from lvm_jax.parallel import runtime
from lvm_jax.tasks.base import Batch, State
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.decoder_optimizer import DecoderOptimizerConfig, make_decoder_optimizer


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of a step.

    Attributes:
      run: computes it once.
      times: how often a step does.
      flops: of its products, once.
    """

    run: Callable[[], object]
    times: int
    flops: float

    def measure(self) -> dict[str, float]:
        """CPU seconds of all its runs in a step, from one run."""
        begin = time.process_time()
        jax.block_until_ready(self.run())
        return {"cpu_seconds": self.times * (time.process_time() - begin)}


def both_passes(function: Callable[..., Any], *arguments: Any) -> Callable[[], object]:
    """Runs the function's forward and backward pass."""
    cotangents = jax.tree.map(
        lambda x: jnp.ones(x.shape, x.dtype), jax.eval_shape(function, *arguments)
    )

    # Results are returned, or the compiler would drop the forward pass of what is linear.
    @jax.jit
    def passes(arguments: Any, cotangents: Any) -> Any:
        results, pullback = jax.vjp(function, *arguments)
        return results, pullback(cotangents)

    return functools.partial(passes, arguments, cotangents)


def make_batch(config: DecoderConfig, batch: int, seq_len: int) -> Batch:
    """Random rows of two sentences."""
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (batch, seq_len + 1))
    positions = np.broadcast_to(np.arange(seq_len + 1), tokens.shape)
    rows = {
        "tokens": tokens,
        "segment_ids": 1 + (positions > 0.7 * seq_len),
        "positions": positions,
    }
    rows = {name: np.asarray(x, np.int32) for name, x in rows.items()}
    return jax.device_put(rows | {"loss_weights": np.ones(tokens.shape, np.float32)})


def matrices(config: DecoderConfig) -> list[tuple[int, int]]:
    """Rows and columns of a block's matrices."""
    D, F = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return [(D, queries), (D, keys), (D, keys), (queries, D), (D, F), (D, F), (F, D)]


def newton_schulz_flops(config: DecoderConfig, iterations: int) -> float:
    """Of all blocks' matrices: an iteration on m x n, m <= n, has two products of 2mmn and one of 2mmm."""
    sides = [sorted(sides) for sides in matrices(config)]
    return config.num_hidden_layers * iterations * sum(4 * m * m * n + 2 * m**3 for m, n in sides)


def whole_step(task: DecoderTask, state: State, rows: Batch) -> Callable[[], object]:
    """Trains one step after the other."""
    step = jax.jit(task.step, donate_argnums=0)
    key, holder = jax.random.key(1), [jax.tree.map(jnp.copy, state)]

    def run() -> object:
        holder[0], metrics = step(holder[0], rows, key)
        return metrics

    return run


def make_parts(task: DecoderTask, optimizer: DecoderOptimizerConfig, batch: int) -> dict[str, Part]:
    """All parts of a step, and the step."""
    config, T = task.config, task.seq_len
    rows, state = make_batch(config, batch, T), jax.jit(task.init)(jax.random.key(0))
    model, layers, tokens = task.model(state), config.num_hidden_layers, batch * T
    x_BTD = jax.random.normal(jax.random.key(2), (batch, T, config.hidden_size), config.dtype)
    block = 6 * sum(m * n for m, n in matrices(config)) * tokens  # FLOPs of its products
    updates = jax.jit(task.tx.update)
    update = functools.partial(updates, state["params"], state["opt"], state["params"])
    muon = optimizer.kind == "muon"
    flops = newton_schulz_flops(config, optimizer.muon.iterations) if muon else 0.0
    whole = train_flops_per_token(config, T) * tokens + flops
    square = jnp.ones((1024, 1024), jnp.float32)
    return {
        "peak": Part(functools.partial(jax.jit(jnp.matmul), square, square), 1, 2.0 * 1024**3),
        "step": Part(whole_step(task, state, rows), 1, whole),
        "attention": attention(config, rows),
        "products": Part(products(config, x_BTD), layers, block),
        "blocks": Part(block_without_attention(model, x_BTD), layers, block),
        "head": Part(
            head_and_loss(model, x_BTD, rows),
            1,
            6 * config.vocab_size * config.hidden_size * tokens,
        ),
        "optimizer": Part(update, 1, flops),
    }


def attention(config: DecoderConfig, rows: Batch) -> Part:
    """Attention of one layer, without its projections."""
    segments = rows["segment_ids"][:, :-1]
    B, T = segments.shape
    N, K, H = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    keys = jax.random.split(jax.random.key(3), 3)
    heads = [
        jax.random.normal(k, (B, T, n, H), config.dtype)
        for k, n in zip(keys, (N, K, K), strict=True)
    ]
    function = functools.partial(attend, segment_ids_BT=segments, implementation=config.attention)
    return Part(both_passes(function, *heads), config.num_hidden_layers, 6.0 * N * H * T * B * T)


def products(config: DecoderConfig, x_BTD: jax.Array) -> Callable[[], object]:
    """The products of one block, each on an input of its own."""
    shapes = matrices(config)
    kernels = [jnp.ones(shape, jnp.float32) for shape in shapes]
    inputs = [jnp.ones((*x_BTD.shape[:2], rows), x_BTD.dtype) for rows, _ in shapes]
    return both_passes(lambda xs, ws: [linear(x, w) for x, w in zip(xs, ws)], inputs, kernels)


def block_without_attention(model: Decoder, x_BTD: jax.Array) -> Callable[[], object]:
    """One block whose queries see themselves alone: norms, rotations, products and the MLP's activation."""
    graphdef, layer = nnx.split(unstack(model.layers, model.config.num_hidden_layers)[0])
    rotate = model.positions.rotation(jnp.arange(x_BTD.shape[1])[None])
    groups = model.config.num_attention_heads // model.config.num_key_value_heads

    def themselves(q: jax.Array, k: jax.Array, v: jax.Array, key: object) -> jax.Array:
        del key
        return q + jnp.repeat(k + v, groups, axis=2)

    return both_passes(lambda s, x: nnx.merge(graphdef, s)(x, rotate, themselves)[0], layer, x_BTD)


def head_and_loss(model: Decoder, x_BTD: jax.Array, rows: Batch) -> Callable[[], object]:
    """Logits and their cross-entropy."""
    graphdef, params = nnx.split(model)
    labels, weights = rows["tokens"][:, 1:], rows["loss_weights"][:, 1:]

    def loss(params: Any, x_BTD: jax.Array) -> jax.Array:
        return cross_entropy(nnx.merge(graphdef, params).logits(x_BTD), labels, weights)[0]

    return both_passes(loss, params, x_BTD)


def print_table(parts: dict[str, Part], cpu: dict[str, float], peak: float) -> None:
    """Milliseconds, share of the step, GFLOP/s and share of the peak."""
    whole = cpu["step"]
    flops = {name: part.times * part.flops for name, part in parts.items()}
    rows = {
        "products of blocks": (cpu["products"], flops["products"]),
        "rest of blocks": (cpu["blocks"] - cpu["products"], 0.0),
        "attention": (cpu["attention"], flops["attention"]),
        "head and loss": (cpu["head"], flops["head"]),
        "optimizer": (cpu["optimizer"], flops["optimizer"]),
    }
    rest = whole - sum(seconds for seconds, _ in rows.values())
    for name, (seconds, count) in (
        rows | {"rest": (rest, 0.0), "step": (whole, flops["step"])}
    ).items():
        speed = (
            f"{count / seconds / 1e9:7.1f} GFLOP/s ({count / seconds / peak:4.0%})" if count else ""
        )
        print(f"{name:20s} {1e3 * seconds:9.1f} ms {seconds / whole:6.1%} {speed}")


def main() -> None:
    """Measures and prints."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    config = decoder(args.preset, dtype=args.dtype, remat=args.remat, scan_layers=args.scan_layers)
    optimizer = DecoderOptimizerConfig(kind=args.optimizer, warmup_steps=1, decay_steps=10**6)
    task = DecoderTask(config, make_decoder_optimizer(optimizer), seq_len=args.seq_len)
    parts = make_parts(task, optimizer, args.batch)
    found = in_turns({name: part.measure for name, part in parts.items()}, args.rounds)
    cpu = {name: median["cpu_seconds"] for name, median in found.items()}
    peak, cores = parts["peak"].flops / cpu["peak"], len(os.sched_getaffinity(0))
    print(
        f"{args.preset}: {count_parameters(config) / 1e6:.2f}M parameters, {args.batch} x {args.seq_len} tokens, "
        f"{args.dtype}, {args.optimizer}, {cores} cores, peak {peak / 1e9:.0f} GFLOP/s, jax {jax.__version__}"
    )
    print_table(parts, cpu, peak)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "small", "size of the decoder: a preset, or 15m")
    flags.DEFINE_integer("batch", 4, "rows of a step", lower_bound=1)
    flags.DEFINE_integer("seq_len", 1024, "tokens of a row", lower_bound=1)
    flags.DEFINE_string("dtype", "float32", "of activations")
    flags.DEFINE_string("remat", "none", "what the backward pass computes again")
    flags.DEFINE_bool("scan_layers", True, "loop over the layers, or unroll them")
    flags.DEFINE_enum("optimizer", "muon", ["muon", "adamw"], "which")
    flags.DEFINE_integer("rounds", 3, "turns of each part", lower_bound=1)
    cli.run(main)
