"""The evaluators that run while a decoder trains, each with its own period.

| name | measures |
|---|---|
| `next_token` | loss of held-out sentences: overall, by source, category and annotation type, beside baselines |
| `controls` | what the query, the pairs and the frames before are worth to the last image, for each task |
| `in_context` | perplexity of the last frame, and of the last answer, against the number of images before it |
| `annotations` | perplexity of each annotation type after `shots` pairs |
| `benchmarks` | answers in context, beside the tokenizer's ceiling and the baselines |
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax

from lvm_jax.data.records.manifest import Manifest, check_compatible
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import WhileTraining
from lvm_jax.evaluation.lvm.benchmarks import (
    BENCHMARKS,
    Questions,
    benchmark_named,
    read_episodes,
)
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.lvm.sentence_evaluators import OF_SENTENCES, sentence_evaluators
from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Subject
from lvm_jax.inference.images import Engine
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN

_BENCHMARKS = "benchmarks"
NAMES = (*OF_SENTENCES, _BENCHMARKS)
State = dict[str, Any]
ModelOf = Callable[[State], Decoder]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate while a decoder trains.

    Attributes:
      split: of the shards.
      max_sentences: of the split, evenly spread, for all but `controls`; 0 takes all.
      control_sentences: of each task of `controls`; 0 takes all.
      context_sentences: of each curve of `in_context` and each type of `annotations`; 0 takes all.
      shots: pairs before an annotation, and before the query of a benchmark (there at least 1).
      batch_size: sentences of full length, or questions, at once.
      benchmarks: "NAME=ROOT,...": keys of `lvm_jax.evaluation.lvm.benchmarks.BENCHMARKS`, and their data folders.
      tokenizer: folder of the VQGAN; only `benchmarks` needs it.
      episodes: questions of each benchmark.
    """

    split: str = "validation"
    max_sentences: int = 256
    control_sentences: int = 64
    context_sentences: int = 48
    shots: int = 5
    batch_size: int = 4
    benchmarks: str = ""
    tokenizer: str = ""
    episodes: int = 64

    def __post_init__(self) -> None:
        for name, value, least in (
            ("max_sentences", self.max_sentences, 0),
            ("control_sentences", self.control_sentences, 0),
            ("context_sentences", self.context_sentences, 0),
            ("shots", self.shots, 0),
            ("batch_size", self.batch_size, 1),
            ("episodes", self.episodes, 1),
        ):
            if value < least:
                raise UserError(f"config.evaluation.{name} is {value}: it must be at least {least}")


def make_evaluations(
    names: Iterable[str], config: EvaluationConfig, shards: str, model_of: ModelOf
) -> dict[str, list[WhileTraining[Any]]]:
    """Makes some of the evaluators in `NAMES`, ready for the training loop.

    It reads all their data now, so that a mistake in it shows before training. Every process scores the same sentences,
    and all devices of the mesh share each batch.

    Args:
      names: which evaluators.
      config: their settings.
      shards: the folder that training reads.
      model_of: training state -> decoder.

    Raises:
      UserError: shards cannot be read, or benchmarks have no data, have a tokenizer other than that of the shards, or
        run on several processes.
    """
    wanted = list(names)
    if not wanted:
        return {}
    store = SentenceStore(shards, config.split)
    codebook_size = store.manifest.codebook_size
    evaluators = sentence_evaluators(
        store,
        names=wanted,
        max_sentences=config.max_sentences,
        control_sentences=config.control_sentences,
        context_sentences=config.context_sentences,
        shots=config.shots,
    )

    def scorer(state: State) -> Scorer:
        return Scorer(model_of(state), codebook_size, batch_size=config.batch_size)

    return {
        name: _benchmarks(config, store.manifest, model_of)
        if name == _BENCHMARKS
        else [WhileTraining(f"evaluation/{name}", evaluators[name], scorer)]
        for name in wanted
    }


def _benchmarks(
    config: EvaluationConfig, manifest: Manifest, model_of: ModelOf
) -> list[WhileTraining[Any]]:
    """One evaluation for each of `config.benchmarks`."""
    named = [
        entry.strip().partition("=") for entry in config.benchmarks.split(",") if entry.strip()
    ]
    if not named or not config.tokenizer or not all(root for _, _, root in named):
        raise UserError(
            f"config.evaluation has benchmarks {config.benchmarks!r} and tokenizer {config.tokenizer!r}: "
            "config.evaluators.benchmarks needs NAME=ROOT and a tokenizer's folder; NAME is one of "
            + ", ".join(BENCHMARKS)
        )
    if jax.process_count() > 1:
        raise UserError(
            f"config.evaluators.benchmarks with {jax.process_count()} processes: only one process can draw the "
            "answers; run experiments/evaluate_benchmarks.py on the finished model"
        )
    vqgan = VQGAN.from_pretrained(config.tokenizer)
    check_compatible(manifest, tokenizer_fingerprint=vqgan.fingerprint())
    asked = Questions(config.episodes, shots=max(1, config.shots))

    def subject(state: State) -> Subject:
        return Subject(Engine(model_of(state), vqgan.tokens_per_image, vqgan.codebook_size), vqgan)

    return [
        WhileTraining(
            f"evaluation/{_BENCHMARKS}/{name}",
            BenchmarkEvaluator(
                benchmark_named(name).score,
                read_episodes(name, root, asked),
                batch_size=config.batch_size,
            ),
            subject,
        )
        for name, _, root in named
    ]
