r"""Decoding on one GPU: tokens/s and images/s of every size, as a fraction of what its memory bandwidth allows.

    python benchmarks/decoding_gpu.py --presets=300m,1b,3b,7b [--peer_python=OTHER_ENVIRONMENT/bin/python]

Random bf16 weights, images of 256 tokens, and a prompt of --images images; each row is one candidate for this prompt. A
step must read every weight once, the prompt's cache once, and each row's own cache. The limit is those bytes over the
bandwidth of a large copy, measured in the same run. The peer is transformers' generate with a static cache and
torch.compile, on the same GPU and weights. It also runs on a CPU, to show that it works.
"""

import itertools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from flax import nnx
from peers.driver import Peer
from turns import in_turns, seconds

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.inference.images import Engine
from lvm_jax.models import Llama, presets
from lvm_jax.models.decoder.config import LlamaConfig, count_parameters
from lvm_jax.models.decoder.kv_cache import CACHE_DTYPES
from lvm_jax.vocabulary import Vocabulary


def copy_bandwidth(megabytes: int) -> float:
    """Bytes/s, read plus written, of copying a large array: the best of five medians of ten copies."""
    x = jnp.ones((megabytes * 2**20 // 4,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy(x).block_until_ready()
    medians = [np.median([seconds(lambda: copy(x)) for _ in range(10)]) for _ in range(5)]
    return 2 * x.nbytes / min(medians)


def step_bytes(config: LlamaConfig, rows: int, prompt: int, own: float, cache_item: float) -> float:
    """The bytes that a decoding step must read: weights with the head but not the input table, and the caches.

    Args:
      config: the decoder, bf16.
      rows: candidates of the one prompt.
      prompt: its tokens, read once.
      own: tokens of each row's own cache, on average.
      cache_item: bytes of a number in the cache.
    """
    weights = 2 * (count_parameters(config) - config.vocab_size * config.hidden_size)
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * cache_item
    return weights + token * (prompt + rows * own)


def random_model(config: LlamaConfig) -> Llama:
    """A model created in bf16, tensor by tensor: fp32 weights of the larger sizes would take memory for nothing."""

    def born(key: jax.Array) -> nnx.State:
        model = Llama(config, rngs=nnx.Rngs(params=key))
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.state(model, nnx.Param))

    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graphdef, jax.jit(born)(jax.random.key(0)))


def main() -> None:
    """Measures every preset and number of rows, prints a table, and with --output writes it as JSON."""
    args = flags.FLAGS
    N = args.tokens_per_image
    bandwidth = copy_bandwidth(args.copy_megabytes)
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, copy {bandwidth / 1e9:,.0f} GB/s"
    )
    print(
        "| preset | prompt | rows | prefill s | tokens/s | images/s | of the limit | peer tokens/s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    lines = []
    for preset in args.presets:
        context = (args.images + 1) * N
        config = presets.llama(preset, dtype="bfloat16", max_position_embeddings=context)
        codes = len(Vocabulary.lvm_of_size(config.vocab_size)["codes"])
        prompt = np.random.default_rng(0).integers(0, codes, (args.images, N)).astype(np.int32)
        engine = Engine(random_model(config), N, codes, cache_dtype=args.cache_dtype)
        for rows in map(int, args.rows):
            line = {"preset": preset, "images": args.images, "rows": rows}
            line |= measure(engine, prompt, rows, args.rounds)
            item = jnp.dtype(engine.cache_dtype).itemsize
            needed = step_bytes(config, rows, prompt.size, N / 2, item)
            line["of_limit"] = line["tokens_per_second"] / (rows * bandwidth / needed)
            if args.peer_python:
                line["peer_tokens_per_second"] = ask_peer(config, prompt, rows, args.rounds)
            lines.append(line)
            peer = line.get("peer_tokens_per_second")
            drawn = line["tokens_per_second"]
            print(
                f"| {preset} | {args.images} | {rows} | {line['prefill_seconds']:.4f} | {drawn:,.0f} | {drawn / N:.2f} "
                f"| {line['of_limit']:.0%} | {f'{peer:,.0f}' if peer else '-'} |",
                flush=True,
            )
    record.write({"device": jax.devices()[0].device_kind, "copy": bandwidth, "lines": lines})


def measure(engine: Engine, prompt: np.ndarray, rows: int, rounds: int) -> dict[str, float]:
    """Median seconds of the prefill, and tokens/s of all rows after it."""

    seeds = itertools.count()
    medians = in_turns(
        {
            "prefill": lambda: {"seconds": seconds(lambda: engine.start([prompt], rows, 1).prefix)},
            "whole": lambda: {
                "seconds": seconds(
                    lambda: engine.generate(prompt, n_candidates=rows, seed=next(seeds))
                )
            },
        },
        rounds,
    )
    fill, total = (medians[name]["seconds"] for name in ("prefill", "whole"))
    tokens = rows * engine.tokens_per_image
    return {"prefill_seconds": fill, "tokens_per_second": rate(tokens, total - fill)}


def rate(tokens: int, spent: float) -> float:
    """Tokens a second.

    Raises:
      UserError: less time was spent than the clock can tell.
    """
    if spent <= 0:
        raise UserError(
            f"drawing {tokens} tokens took {spent:.4f} s beyond the prompt: the machine is too busy to tell; take more "
            "--rounds or --tokens_per_image"
        )
    return tokens / spent


def ask_peer(config: LlamaConfig, prompt: np.ndarray, rows: int, rounds: int) -> float:
    """Median tokens/s of transformers, without its prefill."""
    vocabulary = Vocabulary.lvm_of_size(config.vocab_size)
    shared = {
        "tokens": [vocabulary.bos, *prompt.reshape(-1).tolist()],
        "codes": len(vocabulary["codes"]),
        "candidates": rows,
        "way": "static",
        "sample": True,
        "compile": True,
    }
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        random_model(config).save_pretrained(pathlib.Path(folder))
        side = (folder, device, "bfloat16", record.cores())
        with Peer("torch_decoding.py", *side, keep_freed_memory=False) as peer:

            def whole(new: int) -> dict[str, float]:
                return {"seconds": peer.ask(shared | {"new": new})["seconds"]}

            short, long = 1, prompt.shape[1]
            medians = in_turns({"one": lambda: whole(short), "all": lambda: whole(long)}, rounds)
    return rate(rows * (long - short), medians["all"]["seconds"] - medians["one"]["seconds"])


if __name__ == "__main__":
    flags.DEFINE_list("presets", ["300m", "1b", "3b", "7b"], "decoders of lvm_jax.models.presets")
    flags.DEFINE_list("rows", ["1", "64"], "candidates of the prompt")
    flags.DEFINE_integer("images", 15, "of the prompt", lower_bound=1)
    flags.DEFINE_integer("tokens_per_image", 256, "N", lower_bound=2)
    flags.DEFINE_integer("rounds", 5, "of each measurement", lower_bound=1)
    flags.DEFINE_integer("copy_megabytes", 4096, "of the array whose copy gives the bandwidth")
    flags.DEFINE_enum("cache_dtype", "bfloat16", list(CACHE_DTYPES), "of the KV cache")
    cli.run(main)
