"""Which way to draw answers is best: greedy, a temperature and top-p, the mean or the likeliest of several.

The first half of each task's held-out sentences chooses, the other half reports. No word of a prompt says which task it
is, so there is one default for all: the way with the lowest mean rank over the tasks.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import HEADLINES
from lvm_jax.evaluation.lvm.sentence_answers import (
    GREEDY,
    AskedTask,
    Pictures,
    asked_tasks,
    baselines,
    decoded,
    draw,
    mean_score,
    scores,
    truths,
)
from lvm_jax.evaluation.lvm.visual_benchmark import Subject
from lvm_jax.inference.defaults import EACH, LIKELIEST, MEAN, Defaults
from lvm_jax.inference.sampling import Sampling

_LEAST = 4  # sentences of a task: two to choose on, two to report


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """What to try, and on how many sentences.

    Attributes:
      temperatures, top_ps: every pair of them.
      candidates: draws for each way; the mean and the likeliest are taken of all, and of half of them.
      max_sentences: of each task; 0 takes all.
      seed: of all draws.
      batch_size: prompts to answer at once.
    """

    temperatures: Sequence[float] = (0.4, 0.6, 0.8, 1.0)
    top_ps: Sequence[float] = (0.95, 1.0)
    candidates: int = 8
    max_sentences: int = 32
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise UserError(f"candidates is {self.candidates}: a mean or a choice needs at least 2")
        for sampling in self.samplings():
            sampling.filters()

    def samplings(self) -> list[Sampling]:
        """Every temperature with every top-p."""
        grid = itertools.product(self.temperatures, self.top_ps)
        return [Sampling(temperature=t, top_p=p) for t, p in grid]

    def ways(self) -> dict[str, Defaults]:
        """All ways to draw an answer, by name; greedy first."""
        several = sorted({max(2, self.candidates // 2), self.candidates})
        ways = [GREEDY]
        for sampling in self.samplings():
            drawn = Defaults(temperature=sampling.temperature, top_p=sampling.top_p)
            ways.append(drawn)
            ways += [
                dataclasses.replace(drawn, candidates=count, answer=answer)
                for answer, count in itertools.product((MEAN, LIKELIEST), several)
            ]
        return {name_of(way): way for way in ways}


@dataclasses.dataclass(frozen=True)
class Study:
    """What was measured.

    Attributes:
      results: see `study`.
      default: the way with the lowest mean rank on the choosing halves.
    """

    results: dict[str, Any]
    default: Defaults


def name_of(way: Defaults) -> str:
    """A way in words, such as `mean of 8, temperature 0.6, top-p 0.95`."""
    if way.temperature == 0:
        return "greedy"
    how = f"temperature {way.temperature:g}, top-p {way.top_p:g}"
    return how if way.answer == EACH else f"{way.answer} of {way.candidates}, {how}"


def study(sentences: Sequence[VisualSentence], subject: Subject, config: StudyConfig) -> Study:
    """Tries every way on every task.

    Args:
      sentences: held out.
      subject: decoder and tokenizer.
      config: what to try.

    Returns:
      results `tasks`: TASK -> `sentences` (those that report), `metric`, `better` ("more" or "less" of it), `chosen`
      (the way that is best on the first half), `choosing` and `reporting` (way -> score on the first and on the second
      half; of one draw at a time, the expected score), `baselines` (predictor -> score on the second half). And
      `ranks`: way -> its mean rank over the tasks on the first halves, the best first; `sentences_too_few`: the tasks
      that were left out.

    Raises:
      UserError: no task has at least four sentences.
    """
    tasks = asked_tasks(sentences, config.max_sentences)
    enough = [task for task in tasks if len(task.sentences) >= _LEAST]
    if not enough:
        raise UserError(
            f"{len(tasks)} tasks, none with {_LEAST} held-out sentences of several images: build larger shards"
        )
    ways = config.ways()
    measured = {
        task.name: _measure(task, subject, config, ways)
        for task in tqdm(enough, desc="sampling", unit="task")
    }
    ranks = _mean_ranks(list(measured.values()), list(ways))
    default = next(iter(ranks))
    results = {
        "tasks": measured,
        "ranks": ranks,
        "default": default,
        "sentences_too_few": [task.name for task in tasks if len(task.sentences) < _LEAST],
    }
    return Study(results, ways[default])


def _measure(
    task: AskedTask, subject: Subject, config: StudyConfig, ways: Mapping[str, Defaults]
) -> dict[str, Any]:
    """One task's numbers; see `study`."""
    images = decoded(subject, task.sentences)
    wanted = truths(task, images)
    answers = _answers(task, subject, config, ways)
    half = len(wanted) // 2
    metric, more = HEADLINES[task.score]

    def over(chosen: slice) -> Callable[[Sequence[Pictures]], float]:
        return lambda made: mean_score(task.score, scores(task.score, made[chosen], wanted[chosen]))

    first, second = over(slice(0, half)), over(slice(half, None))
    choosing = {name: first(made) for name, made in answers.items()}
    known = {name: value for name, value in choosing.items() if not math.isnan(value)}
    best = max(known, key=lambda name: known[name] if more else -known[name], default=None)
    return {
        "sentences": len(wanted) - half,
        "metric": metric,
        "better": "more" if more else "less",
        "chosen": best,
        "choosing": known,
        "reporting": _without_nan({name: second(made) for name, made in answers.items()}),
        "baselines": _without_nan(
            {name: second(made) for name, made in baselines(images, task.period).items()}
        ),
    }


def _answers(
    task: AskedTask, subject: Subject, config: StudyConfig, ways: Mapping[str, Defaults]
) -> dict[str, list[Pictures]]:
    """Every way's answers to each sentence. Ways with one sampling share its draws."""
    found: dict[str, list[Pictures]] = {}
    for sampling, of_sampling in itertools.groupby(ways.items(), lambda item: item[1].sampling):
        # Greedy draws are all the same: one is enough.
        candidates = config.candidates if sampling.temperature else 1
        drawn = draw(
            subject,
            task.sentences,
            sampling,
            candidates,
            seed=config.seed,
            batch_size=config.batch_size,
        )
        for name, way in of_sampling:
            # A single draw has an expected score, which all draws estimate.
            found[name] = drawn.shown(way.answer, None if way.answer == EACH else way.candidates)
    return found


def _mean_ranks(measured: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Ranks on the choosing halves, 1 is best; equal scores share the mean of their ranks."""
    rows = []
    for one in measured:
        sign = -1 if one["better"] == "more" else 1
        if len(one["choosing"]) == len(names):
            rows.append(stats.rankdata([sign * one["choosing"][name] for name in names]))
    means = np.mean(rows, axis=0) if rows else np.ones(len(names))
    ranks = dict(zip(names, means.tolist(), strict=True))
    return dict(sorted(ranks.items(), key=lambda item: item[1]))  # stable: greedy before its equals


def _without_nan(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not math.isnan(value)}
