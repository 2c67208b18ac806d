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
import pathlib
import tempfile

import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from agreement import require_equal
from flax import nnx
from peers.driver import Peer
from turns import in_turns, seconds

from lvm_jax import cli
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


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    threads = record.cores()
    N, B = args.tokens_per_image, args.candidates
    model = make_model(args.preset, args.images, N)
    vocabulary = Vocabulary.lvm_of_size(model.config.vocab_size)
    codes = len(vocabulary["codes"])
    prompt = np.random.default_rng(0).integers(0, codes, (args.images, N)).astype(np.int32)
    engine = Engine(model, N, codes)
    greedy = Sampling(temperature=0.0)
    record.announce()

    def question(way: str, sample: bool = True) -> dict[str, object]:
        bos = [] if way == "one_by_one" else [vocabulary.bos]
        tokens = bos + prompt.reshape(-1).tolist()
        shared = {"new": N, "codes": codes, "candidates": B, "compile": False}
        return {"tokens": tokens, "way": way, "sample": sample, **shared}

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(pathlib.Path(folder))
        with Peer("torch_decoding.py", folder, "cpu", "float32", threads) as peer:
            theirs = peer.ask(question("static", sample=False))["ids"]
            alone = [engine.generate(prompt, sampling=greedy)[:, 0] for _ in range(B)]
            ours = {
                "shared": engine.generate(prompt, n_candidates=B, sampling=greedy)[:, 0],
                "one by one": np.concatenate(alone),
            }
            for name, ids in ours.items():
                require_equal(f"greedy ids of {name} and static", ids, theirs)
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
            versions = record.versions(peer.versions)
    times = {name: median["seconds"] for name, median in medians.items()}
    ratios = {name: times[name] / times["shared"] for name in times if name != "shared"}
    print(
        f"{args.preset}: {B} candidates of a prompt of {args.images} images of {N} tokens, fp32, {threads} threads, "
        f"{versions}\n"
        f"shared: {B * N / times['shared']:,.0f} tokens/s, {times['shared']:.3f} s (median of {args.rounds}); "
        f"as many times faster than: {', '.join(f'{n} {r:.2f}' for n, r in ratios.items())}"
    )
    record.write({"threads": threads, "versions": versions, "seconds": times, "ratios": ratios})


if __name__ == "__main__":
    flags.DEFINE_string("preset", "quickstart", "decoder of lvm_jax.models.presets")
    flags.DEFINE_integer("images", 7, "of the prompt", lower_bound=1)
    flags.DEFINE_integer("tokens_per_image", 64, "N", lower_bound=1)
    flags.DEFINE_integer("candidates", 8, "answers", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "turns of each way", lower_bound=1)
    cli.run(main, required_flags=["peer_python"])
