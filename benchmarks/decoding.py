r"""Candidates from one prompt on the CPU: this project's shared prefix against transformers, in turns, in one run.

    python benchmarks/decoding.py --peer_python=OTHER_ENVIRONMENT/bin/python

One prompt of 7 images, 8 candidates of one image each, fp32, sampled at temperature 1. The ways:
  shared       Engine.generate: one prefill, one cache of the prompt for all candidates
  one by one   Engine.generate for each candidate: what sharing and batching are worth
  static       transformers' generate, a batch of 8 with a static cache
  published    transformers' generate as the published evaluation calls it: 8 runs of batch 1, no BOS
Before any timing, the greedy ids of "shared", "one by one" and "static" must be equal. OTHER_ENVIRONMENT has torch and
transformers. Run it on an idle machine.
"""

import itertools
import json
import os
import pathlib
import sys
import tempfile

import jax
import numpy as np
from absl import flags
from flax import nnx
from peers.driver import Peer  # benchmarks/ is the script's own folder
from turns import in_turns, seconds

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.inference.images import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models import Llama, presets
from lvm_jax.parallel import runtime
from lvm_jax.vocabulary import Vocabulary

SPREAD = 0.1  # of the random weights: far enough that rounding does not turn an argmax


def make_model(preset: str, images: int, tokens_per_image: int) -> Llama:
    """Random weights, and a context for one image more than the prompt has."""
    context = (images + 1) * tokens_per_image
    config = presets.llama(preset, initializer_range=SPREAD, max_position_embeddings=context)
    return nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(0)))()


def check_greedy(ours: dict[str, np.ndarray], theirs: np.ndarray) -> None:
    """Requires equal ids.

    Raises:
      UserError: they differ, so a timing would compare programs that compute different things.
    """
    for name, ids in ours.items():
        if not np.array_equal(ids, theirs):
            differ = int(np.argmax((ids != theirs).any(axis=0)))
            raise UserError(
                f"greedy ids of {name!r} and transformers differ from token {differ} on: nothing was timed"
            )
    print(f"greedy ids of {', '.join(ours)} and transformers are equal: {theirs.size} tokens")


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    N, B = args.tokens_per_image, args.candidates
    model = make_model(args.preset, args.images, N)
    vocabulary = Vocabulary.lvm_of_size(model.config.vocab_size)
    codes = len(vocabulary["codes"])
    prompt = np.random.default_rng(0).integers(0, codes, (args.images, N)).astype(np.int32)
    engine = Engine(model, N, codes)
    greedy = Sampling(temperature=0.0)
    print(f"{threads} cores, load average {os.getloadavg()[0]:.1f} before the start")

    def question(way: str, sample: bool = True) -> dict[str, object]:
        bos = [] if way == "one_by_one" else [vocabulary.bos]
        tokens = bos + prompt.reshape(-1).tolist()
        shared = {"new": N, "codes": codes, "candidates": B, "compile": False}
        return {"tokens": tokens, "way": way, "sample": sample, **shared}

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(pathlib.Path(folder))
        with Peer(
            args.peer_python,
            "torch_decoding.py",
            folder,
            "cpu",
            "float32",
            threads,
            keep_freed_memory=True,
        ) as peer:
            ours = {
                "shared": engine.generate(prompt, n_candidates=B, sampling=greedy)[:, 0],
                "one by one": np.concatenate(
                    [engine.generate(prompt, sampling=greedy)[:, 0] for _ in range(B)]
                ),
            }
            check_greedy(ours, np.array(peer.ask(question("static", sample=False))["ids"]))
            seeds = itertools.count()

            def shared() -> None:
                engine.generate(prompt, n_candidates=B, seed=next(seeds))

            def one_by_one() -> None:
                for _ in range(B):
                    engine.generate(prompt, seed=next(seeds))

            medians = in_turns(
                {
                    "shared": lambda: {"seconds": seconds(shared)},
                    "one by one": lambda: {"seconds": seconds(one_by_one)},
                    "static": lambda: {"seconds": peer.ask(question("static"))["seconds"]},
                    "published": lambda: {"seconds": peer.ask(question("one_by_one"))["seconds"]},
                },
                args.rounds,
            )
            versions = peer.versions | {"jax": jax.__version__, "python": sys.version.split()[0]}
    times = {name: median["seconds"] for name, median in medians.items()}
    ratios = {name: times[name] / times["shared"] for name in times if name != "shared"}
    print(
        f"{args.preset}: {B} candidates of a prompt of {args.images} images of {N} tokens, fp32, {threads} threads, "
        f"{versions}\n"
        f"shared: {B * N / times['shared']:,.0f} tokens/s, {times['shared']:.3f} s (median of {args.rounds}); "
        f"as many times faster than: {', '.join(f'{n} {r:.2f}' for n, r in ratios.items())}"
    )
    if args.output:
        record = {"threads": threads, "versions": versions, "seconds": times, "ratios": ratios}
        pathlib.Path(args.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("peer_python", None, "a Python interpreter with torch and transformers")
    flags.DEFINE_string("preset", "quickstart", "decoder of lvm_jax.models.presets")
    flags.DEFINE_integer("images", 7, "of the prompt", lower_bound=1)
    flags.DEFINE_integer("tokens_per_image", 64, "N", lower_bound=1)
    flags.DEFINE_integer("candidates", 8, "answers", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "turns of each way", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    cli.run(main, required_flags=["peer_python"])
