"""Asks a benchmark's questions again with another question's query, and after pairs with shuffled answers.

The answers are scored against the truth of the original question. A decoder that reads its query and its pairs answers
these worse; where the score stays, it says nothing of them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm.answer_scores import Picture, States
from lvm_jax.evaluation.lvm.changed_sentences import deranged, donors
from lvm_jax.evaluation.lvm.scoring import SentenceScore
from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Episode, Subject, square
from lvm_jax.inference.codec import encode_images
from lvm_jax.metrics.states import Mean
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.reporting.controls import LEAST_NATS, is_flat

Score = Callable[[Sequence[VisualSentence]], Sequence[SentenceScore]]

CODE_LOSS = "code_loss"
_ENCODED_TOGETHER = 8  # questions

# Predictor of the results -> what stands in the place of the question's own.
_CONTROLS = {
    "control_other_query": "another question's query",
    "control_shuffled": "shuffled answers",
}


def control_states(
    evaluator: BenchmarkEvaluator, subject: Subject, scorer: Score, *, seed: int = 0
) -> list[States]:
    """What the controls add to the scores of each episode, before the division.

    `CONTROL/METRIC` scores the decoder's answer to the changed question; `model/code_loss` and `CONTROL/code_loss` are
    nats a code of the truth after the question.

    Args:
      evaluator: of the benchmark.
      subject: what it scores.
      scorer: of the same decoder.
      seed: of the draws.

    Raises:
      UserError: the questions do not differ, so that there is nothing to swap.
    """
    episodes = evaluator.episodes
    changed = {
        "control_other_query": with_other_queries(episodes, seed),
        "control_shuffled": with_shuffled_answers(episodes, seed),
    }
    found: list[States] = [{} for _ in episodes]
    for name, asked in {"model": episodes, **changed}.items():
        for states, loss in zip(found, _code_losses(asked, subject.vqgan, scorer), strict=True):
            states[f"{name}/{CODE_LOSS}"] = Mean(loss)
    for name, asked in changed.items():
        each = evaluator.asking(asked).each(subject)
        for states, scored in zip(found, each, strict=True):
            states |= {
                f"{name}/{metric.removeprefix('model/')}": state
                for metric, state in scored.items()
                if metric.startswith("model/")
            }
    return found


def changes(each: Sequence[States]) -> Result:
    """How the controls' scores differ from the model's, and which of them are flat.

    Args:
      each: the scores of every episode, with those of `control_states`.

    Returns:
      `CONTROL/METRIC_change`, the mean over episodes of control minus model, and `CONTROL/METRIC_change_error`, its
      standard error; a metric that fewer than two episodes have is absent. `flat` lists the scores that do not change:
      by less than two errors, or of losses by less than 0.02 nats a code.
    """
    result: Result = {}
    flat = []
    for control, instead in _CONTROLS.items():
        for metric in [n.removeprefix("model/") for n in each[0] if n.startswith("model/")]:
            values = _changes_of(each, f"{control}/{metric}", f"model/{metric}")
            if len(values) < 2:
                continue
            change, error = values.mean(), values.std(ddof=1) / math.sqrt(len(values))
            result[f"{control}/{metric}_change"] = float(change)
            result[f"{control}/{metric}_change_error"] = float(error)
            if is_flat(change, error, LEAST_NATS if metric == CODE_LOSS else 0):
                flat.append(f"{metric} with {instead}")
    return result | {"flat": "; ".join(flat) or "none"}


def with_other_queries(episodes: Sequence[Episode], seed: int) -> list[Episode]:
    """Each episode with the query of another.

    Raises:
      UserError: an episode has no other with a different query.
    """
    chosen = _donors(episodes, [episode.query for episode in episodes], f"{seed}/query")
    return [
        dataclasses.replace(episode, query=episodes[donor].query)
        for episode, donor in zip(episodes, chosen)
    ]


def with_shuffled_answers(episodes: Sequence[Episode], seed: int) -> list[Episode]:
    """Each episode with its pairs' answers permuted, so that none stays; a single pair takes another episode's.

    Raises:
      UserError: an episode with a single pair has no other with a different answer.
    """
    last = [episode.support[-1][1] for episode in episodes]
    single = any(len(episode.support) == 1 for episode in episodes)
    chosen = _donors(episodes, last, f"{seed}/answer") if single else range(len(episodes))

    def shuffled(number: int, episode: Episode, donor: int) -> Episode:
        images, answers = zip(*episode.support)
        if len(answers) == 1:
            others = [last[donor]]
        else:
            order = deranged(len(answers), f"{seed}/answers/{number}/{episode.key}")
            others = [answers[i] for i in order]
        return dataclasses.replace(episode, support=list(zip(images, others)))

    return [shuffled(i, episode, donor) for i, (episode, donor) in enumerate(zip(episodes, chosen))]


def _donors(episodes: Sequence[Episode], pictures: Sequence[Picture], draw: str) -> list[int]:
    chosen = donors(
        [f"{draw}/{number}/{episode.key}" for number, episode in enumerate(episodes)],
        lambda i, j: not np.array_equal(pictures[i], pictures[j]),
    )
    if chosen is None:
        raise UserError(
            f"{len(episodes)} episodes have no different queries or answers to swap: controls need at least 2; "
            "ask more --episodes"
        )
    return chosen


def _code_losses(episodes: Sequence[Episode], vqgan: VQGAN, scorer: Score) -> list[float]:
    """Nats a code of each truth after its question."""
    sentences = []
    for start in range(0, len(episodes), _ENCODED_TOGETHER):
        batch = episodes[start : start + _ENCODED_TOGETHER]
        rows = [[square(x, vqgan) for x in (*e.shown, e.truth)] for e in batch]
        codes = encode_images(vqgan, np.stack([x for row in rows for x in row]))
        split = np.split(codes.astype(np.uint32), np.cumsum([len(row) for row in rows])[:-1])
        sentences += [
            VisualSentence(
                found,
                "",
                Category.ANNOTATED_IMAGE,
                e.key,
                ",".join(["image,answer"] * (len(found) // 2)),
            )
            for found, e in zip(split, batch)
        ]
    return [float(score.nll_IN[-1].mean()) for score in scorer(sentences)]


def _changes_of(each: Sequence[States], control: str, model: str) -> np.ndarray:
    """control - model of every episode in which both have something to measure."""
    values = np.array([[states[control].compute(), states[model].compute()] for states in each])
    known = values[~np.isnan(values).any(axis=1)]
    return known[:, 0] - known[:, 1]
