"""The evaluators of this room as the training loop calls them: (step, state) -> numbers.

| name | measures |
|---|---|
| `next_token` | loss of held-out sentences: all, by source, by category, by annotation type, beside the baselines |
| `in_context` | perplexity of the last frame, and of the last answer, against the images before it |
| `annotations` | perplexity of each annotation type after `shots` pairs |
| `tasks` | visual tasks in context, beside the tokenizer's ceiling and the baselines |
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import jax

from lvm_jax.data.records.manifest import Manifest, check_compatible
from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Evaluator
from lvm_jax.evaluation.lvm.benchmarks import TASKS, Questions, read_episodes, task_named
from lvm_jax.evaluation.lvm.in_context import AnnotationPerplexityEvaluator, InContextEvaluator
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.lvm.visual_benchmark import Subject, VisualTaskEvaluator
from lvm_jax.inference.images import Engine
from lvm_jax.models.decoder.llama import Llama
from lvm_jax.models.tokenizer.vqgan import VQGAN

NAMES = ("next_token", "in_context", "annotations", "tasks")
_Judged = TypeVar("_Judged")
State = dict[str, Any]
ModelOf = Callable[[State], Llama]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated while a decoder trains.

    Attributes:
      split: of the shards.
      max_sentences: of the split, evenly spread; 0 takes all.
      context_sentences: a curve of `in_context`, or a type of `annotations`; 0 takes all.
      shots: pairs before an annotation, of `annotations` and of `tasks` (which show 1 at least).
      batch_size: sentences of full length, or questions, at once.
      tasks: "NAME=ROOT,...", keys of `lvm_jax.evaluation.lvm.benchmarks.TASKS` and where their data is.
      tokenizer: folder of the VQGAN; `tasks` need it.
      episodes: questions of each task.
    """

    split: str = "validation"
    max_sentences: int = 256
    context_sentences: int = 48
    shots: int = 5
    batch_size: int = 4
    tasks: str = ""
    tokenizer: str = ""
    episodes: int = 64

    def __post_init__(self) -> None:
        for name, least in {
            "max_sentences": 0,
            "context_sentences": 0,
            "shots": 0,
            "batch_size": 1,
            "episodes": 1,
        }.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"config.evaluation.{name} is {getattr(self, name)}: it must be at least {least}"
                )


class WhileTraining(Generic[_Judged]):
    """An evaluator in the form of `lvm_jax.training.loop.Evaluation`.

    Args:
      prefix: of the names in metrics.jsonl, behind "evaluation/".
      evaluator: judges.
      subject: the state of a training -> what is judged.
    """

    def __init__(
        self,
        prefix: str,
        evaluator: Evaluator[_Judged],
        subject: Callable[[State], _Judged],
    ) -> None:
        self._prefix, self._evaluator, self._subject = prefix, evaluator, subject

    def __call__(self, step: int, state: State) -> dict[str, float]:
        """The evaluator's numbers; what it says in words (why a number is missing) is left out."""
        del step
        results = self._evaluator.run(self._subject(state))
        return {
            f"evaluation/{self._prefix}/{name}": value
            for name, value in results.items()
            if not isinstance(value, str)
        }


def check_periods(periods: Mapping[str, int]) -> None:
    """Requires known evaluators and periods of 0 (never) or more steps.

    Raises:
      UserError: otherwise.
    """
    for name, steps in periods.items():
        if name not in NAMES:
            raise UserError(f"config.evaluators.{name} does not exist; known: {', '.join(NAMES)}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise UserError(
                f"config.evaluators.{name} is {steps!r}: a number of steps, 0 for never"
            )


def make_evaluations(
    names: Iterable[str], config: EvaluationConfig, shards: str, model_of: ModelOf
) -> dict[str, list[WhileTraining[Any]]]:
    """The evaluations of some of `NAMES`; all their data is read here, so a mistake shows before training.

    Every process judges the same sentences, and all devices of the mesh work on each batch.

    Raises:
      UserError: unusable shards; tasks without data, or with another tokenizer than that of the shards, or on several
        processes.
    """
    wanted = list(names)
    if not wanted:
        return {}
    store = SentenceStore(shards, config.split)
    codes, limit = store.manifest.codebook_size, config.context_sentences
    sentences = read_sentences(store, config.max_sentences)
    makers: dict[str, Callable[[], Evaluator[Scorer]]] = {
        "next_token": lambda: NextTokenEvaluator(sentences, codes),
        "in_context": lambda: InContextEvaluator(sentences, max_sentences=limit),
        "annotations": lambda: AnnotationPerplexityEvaluator(
            sentences, shots=config.shots, max_sentences=limit
        ),
    }

    def scorer(state: State) -> Scorer:
        return Scorer(model_of(state), codes, batch_size=config.batch_size)

    return {
        name: [WhileTraining(name, makers[name](), scorer)]
        if name in makers
        else _tasks(config, store.manifest, model_of)
        for name in wanted
    }


def _tasks(
    config: EvaluationConfig, manifest: Manifest, model_of: ModelOf
) -> list[WhileTraining[Any]]:
    """An evaluation for each of `config.tasks`."""
    pairs = [part.strip().partition("=") for part in config.tasks.split(",") if part.strip()]
    if not pairs or not config.tokenizer or not all(root for _, _, root in pairs):
        raise UserError(
            f"config.evaluation has tasks {config.tasks!r} and tokenizer {config.tokenizer!r}: "
            f"config.evaluators.tasks needs NAME=ROOT and a tokenizer's folder; NAME is one of {', '.join(TASKS)}"
        )
    if jax.process_count() > 1:
        raise UserError(
            f"config.evaluators.tasks with {jax.process_count()} processes: pictures are made by one process; "
            "run experiments/evaluate_benchmarks.py on the finished model"
        )
    vqgan = VQGAN.from_pretrained(config.tokenizer)
    check_compatible(manifest, tokenizer_fingerprint=vqgan.fingerprint())
    asked = Questions(config.episodes, shots=max(1, config.shots))

    def subject(state: State) -> Subject:
        return Subject(Engine(model_of(state), vqgan.tokens_per_image, vqgan.codebook_size), vqgan)

    return [
        WhileTraining(
            f"tasks/{name}",
            VisualTaskEvaluator(
                task_named(name).score,
                read_episodes(name, root, asked),
                batch_size=config.batch_size,
            ),
            subject,
        )
        for name, _, root in pairs
    ]
