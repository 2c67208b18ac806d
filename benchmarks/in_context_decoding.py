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
from collections.abc import Callable, Sequence

import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from agreement import require_equal
from flax import nnx
from turns import in_turns, seconds

from lvm_jax import cli
from lvm_jax.data.in_context.sequences import Pair, Question, SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
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


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args, seeds = flags.FLAGS, itertools.count()
    runtime.keep_freed_memory()
    engine = make_engine(args.preset, args.tokens_per_image)
    prompts = make_prompts(args.candidates, args.tokens_per_image)
    first, count = prompts[:1], args.candidates
    apart = [dataclasses.replace(p, examples=(*p.examples,)) for p in prompts]
    record.announce()
    together = engine.masks(first, n_candidates=count, sampling=GREEDY)[0]
    alone = engine.masks(first, sampling=GREEDY)[0]
    repeated = np.repeat(alone, count, axis=0)
    require_equal("greedy codes of together and one by one", together, repeated)
    shared, by_themselves = (engine.masks(of, sampling=GREEDY) for of in (prompts, apart))
    require_equal("greedy codes of shared and apart", shared, by_themselves)

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
        f"{args.preset}, {EXAMPLES} examples of {args.tokens_per_image} codes, {count} candidates, fp32, "
        f"{record.versions({})}\n"
        f"together: {codes / times['together']:,.0f} codes/s, {times['one by one'] / times['together']:.2f} times as "
        f"fast as one by one; shared examples: {times['apart'] / times['shared']:.2f} times as fast as apart"
    )
    record.write({"seconds": times})


if __name__ == "__main__":
    flags.DEFINE_string("preset", "quickstart", "decoder of lvm_jax.models.presets.unified")
    flags.DEFINE_integer("tokens_per_image", 64, "N", lower_bound=1)
    flags.DEFINE_integer("candidates", 16, "answers to a prompt, and queries", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "turns of each way", lower_bound=1)
    cli.run(main)
