"""What the card of unified says: what answers depend on, gates, and scores beside baselines and controls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.release.card import CardParts, bullets, stored
from lvm_jax.release.stored import StoredTypes
from lvm_jax.reporting import markdown, unified_scores, unified_words
from lvm_jax.reporting.numbers import number as n
from lvm_jax.reporting.numbers import percent
from lvm_jax.reporting.unified_gates import gates
from lvm_jax.reporting.unified_inputs import UnifiedFiles
from lvm_jax.reporting.unified_words import ASKED

_LOAD = """```python
from lvm_jax.inference.in_context_pictures import Example, InContextGenerator

folder = "release/unified"
generator = InContextGenerator.from_pretrained(f"{folder}/decoder", f"{folder}/tokenizer")
((drawn,),) = generator.segment([Example("a.png", "a.mask.png")], ["query.png"])
print(drawn.mask.mean())  # the share of the query that is meant
```

Each folder of `release/unified/episodes` is a held-out question, which `experiments/generate.py --prompt` asks too.
"""


def card_parts(
    files: UnifiedFiles,
    generator: InContextGenerator,
    types: StoredTypes,
    trainings: Mapping[str, Sequence[str]],
) -> CardParts:
    """What the card says.

    Args:
      files: of the run.
      generator: tokenizers and decoder.
      types: of the stored weights.
      trainings: see `CardParts`.
    """
    return CardParts(
        headline=unified_words.headline(files.results),
        what=_what(generator, types),
        demands=gates(files.results["pictures"], files.results["words"]),
        load=_LOAD,
        manifests=files.manifests,
        trainings=trainings,
        stages=files.stages,
        workdir=str(files.workdir),
        environment=files.environment,
        scores=[
            *(block for name in files.results for block in _scores(name, files.results[name])),
            *_missing(files.results),
        ],
        limits=list(_limits(files, generator)),
    )


def _what(generator: InContextGenerator, types: StoredTypes) -> str:
    vqgan = generator.vqgan
    side, codes = vqgan.config.resolution, vqgan.tokens_per_image
    return (
        f"A tokenizer ({stored(vqgan, types.tokenizer)}) that turns {side} x {side} pixels into {codes} codes of "
        f"{n(vqgan.codebook_size)} and back, and a decoder ({stored(generator.model, types.model)}) that reads up to "
        f"{generator.engine.most_examples} examples and a query. An example is a picture with a mask or with words; "
        "the answer to the query is of the same kind."
    )


def _scores(name: str, results: Mapping[str, Any]) -> list[str]:
    title = ASKED.get(name, name)
    blocks = [
        f"### {title[0].upper()}{title[1:]}\n",
        f"Examples before each query: {n(results['examples'])}; classes: {results['classes']}; greedy answers.\n",
    ]
    if controls := unified_words.told(results):
        blocks.append(bullets(controls))
    for header, rows in unified_scores.grids(results).values():
        blocks.append(markdown.table(header, [tuple(map(n, row)) for row in rows]))
    return blocks


def _missing(evaluations: Mapping[str, Any]) -> list[str]:
    """What no evaluation could measure is said once for all of them."""
    each = [one for results in evaluations.values() for one in unified_scores.missing(results)]
    return ["### Not measured\n", bullets(list(dict.fromkeys(each)))] if each else []


def _limits(files: UnifiedFiles, generator: InContextGenerator) -> Iterator[str]:
    """What it cannot do, going by the numbers."""
    side = generator.vqgan.config.resolution
    yield f"It sees and draws {side} x {side} pixels; what is smaller than a few of them is lost."
    for name, results in files.results.items():
        said = results.get("captioning", {})
        asked = f"With {ASKED[name]}" if name in ASKED else f"In the evaluation {name}"
        scores = [key.removeprefix("frequent/") for key in said if key.startswith("frequent/")]
        behind = [
            score
            for score in scores
            if not score.endswith("_error") and said[f"model/{score}"] <= said[f"frequent/{score}"]
        ]
        if behind:
            yield f"{asked}, its words are no better than the most frequent ones in: {', '.join(behind)}."
        broken = said.get("broken")
        if broken:
            yield f"{asked}, {percent(broken)} of its answers in words could not be read whole."
