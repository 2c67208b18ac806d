r"""Answers from three examples on the CPU: 16 candidates of one prompt together against 16 runs of one, in turns.

    python benchmarks/in_context_decoding.py

Random weights, fp32, sampled at temperature 1. The ways:
  together     one prefill of the prompt, one cache of it for all candidates
  one by one   each candidate by itself, as a loop over seeds would do it
  shared       16 queries of the same three examples, which are read once
  apart        the same 16 queries, each with examples of its own
Before any timing, the greedy answers of the first two must be equal, and those of the last two. Run it on an idle
machine.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags
from flax import nnx
from turns import in_turns, seconds  # benchmarks/ is the script's own folder

from lvm_jax import cli
from lvm_jax.data.in_context.sequences import Pair, Question, SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
from lvm_jax.errors import UserError
from lvm_jax.inference.in_context import InContextEngine, InContextPrompt
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models import Decoder, presets
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.parallel import runtime
from lvm_jax.vocabulary import Vocabulary

EXAMPLES, CODES = 3, 256
GREEDY = Sampling(temperature=0.0)


class NoText:
    """Masks need no text tokenizer."""

    def encode(self, text: str) -> Sequence[int]:
        """No ids."""
        del text
        return []

    def decode(self, ids: Sequence[int]) -> str:
        """No text."""
        del ids
        return ""


def make_engine(preset: str, tokens: int) -> InContextEngine:
    """Random weights, and room for three examples and a query."""
    vocabulary = Vocabulary.unified(text=512, image=CODES, bins=65)
    form = SequenceFormat(WordsFormat(vocabulary, NoText()), tokens)
    config = presets.unified(
        preset,
        vocabulary,
        max_position_embeddings=(EXAMPLES + 1) * form.pair_length,
        # Far enough from each other that rounding does not turn an argmax.
        initializer_range=0.1,
        moe=MoEConfig(experts=4, router="attribute", dispatch="all_experts"),
    )
    return InContextEngine(nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))(), form)


def make_prompts(count: int, tokens: int) -> list[InContextPrompt]:
    """Queries that share their examples."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, CODES, (2 * EXAMPLES + count, tokens)).astype(np.int32)
    pairs = tuple(Pair(codes[2 * i], codes[2 * i + 1]) for i in range(EXAMPLES))
    return [InContextPrompt(pairs, query, Question.SEGMENTATION) for query in codes[2 * EXAMPLES :]]


def check_equal(what: str, one: np.ndarray, other: np.ndarray) -> None:
    """Requires equal codes.

    Raises:
      UserError: they differ, so a timing would compare programs that compute different things.
    """
    if not np.array_equal(one, other):
        raise UserError(f"greedy codes of {what} differ: nothing was timed")
    print(f"greedy codes of {what} are equal: {one.size} of them")


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args, seeds = flags.FLAGS, itertools.count()
    runtime.keep_freed_memory()
    engine = make_engine(args.preset, args.tokens_per_image)
    prompts = make_prompts(args.candidates, args.tokens_per_image)
    first, count = prompts[:1], args.candidates
    apart = [dataclasses.replace(p, examples=(*p.examples,)) for p in prompts]
    print(f"load average {os.getloadavg()[0]:.1f} before the start")
    together = engine.masks(first, n_candidates=count, sampling=GREEDY)[0]
    alone = engine.masks(first, sampling=GREEDY)[0]
    check_equal("together and one by one", together, np.repeat(alone, count, axis=0))
    check_equal(
        "shared and apart",
        engine.masks(prompts, sampling=GREEDY),
        engine.masks(apart, sampling=GREEDY),
    )

    def one_by_one() -> None:
        for _ in range(count):
            engine.masks(first, seed=next(seeds))

    ways: dict[str, Callable[[], object]] = {
        "together": lambda: engine.masks(first, n_candidates=count, seed=next(seeds)),
        "one by one": one_by_one,
        "shared": lambda: engine.masks(prompts, seed=next(seeds)),
        "apart": lambda: engine.masks(apart, seed=next(seeds)),
    }
    medians = in_turns(
        {name: lambda way=way: {"seconds": seconds(way)} for name, way in ways.items()}, args.rounds
    )
    times = {name: median["seconds"] for name, median in medians.items()}
    codes = count * args.tokens_per_image
    print(
        f"{args.preset}, {EXAMPLES} examples of {args.tokens_per_image} codes, {count} candidates, fp32, jax "
        f"{jax.__version__}, python {sys.version.split()[0]}\n"
        f"together: {codes / times['together']:,.0f} codes/s, {times['one by one'] / times['together']:.2f} times as "
        f"fast as one by one; shared examples: {times['apart'] / times['shared']:.2f} times as fast as apart"
    )
    if args.output:
        pathlib.Path(args.output).write_text(json.dumps({"seconds": times}, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("preset", "quickstart", "decoder of lvm_jax.models.presets.unified")
    flags.DEFINE_integer("tokens_per_image", 64, "N", lower_bound=1)
    flags.DEFINE_integer("candidates", 16, "answers to a prompt, and queries", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "turns of each way", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    cli.run(main)
