"""A decoder's answers to held-out sentences, scored beside predictors without a network.

The last image of a sentence is asked for. Sentences are codes, so the truth here is what the tokenizer keeps of it, and
so is all else that is compared. What the tokenizer loses is in its ceilings.

M: sentences of a task, I: images of a sentence, B: candidates, A: answers to a sentence, N: tokens per image,
H, W: pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from lvm_jax.data.sentences.visual_sentence import VisualSentence, period_of
from lvm_jax.data.splits import spread
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm import changed_sentences as changed
from lvm_jax.evaluation.lvm.answer_scores import (
    HEADLINES,
    OF_ROLE,
    PICTURE,
    SCORES,
    Picture,
    States,
    headline,
)
from lvm_jax.evaluation.lvm.changed_sentences import AnswerTask, Sentences
from lvm_jax.evaluation.lvm.sentence_tasks import by_task, equally_long
from lvm_jax.evaluation.lvm.visual_benchmark import Subject
from lvm_jax.inference.codec import decode_codes
from lvm_jax.inference.defaults import Defaults, answers_of
from lvm_jax.inference.sampling import Sampling
from lvm_jax.metrics import states as metric_states
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.pixels import to_uint8

GREEDY = Defaults(temperature=0.0)
MODEL = "model"
_LEAST_AREA = 0.01  # of the picture
_LEAST_LEVEL = 4  # of 255; darker is black

Pictures = UInt8[np.ndarray, "A H W 3"]


@dataclasses.dataclass(frozen=True)
class AskedTask:
    """Sentences whose last image is asked for, with the score of its role.

    Attributes:
      name: such as `scenes: image -> depth` or `walks: next frame`.
      score: a key of `SCORES`.
      period: images of a pair; 1 for frames and views.
      sentences: with equally many images.
    """

    name: str
    score: str
    period: int
    sentences: Sentences


@dataclasses.dataclass(frozen=True)
class Answered:
    """The answers to a task.

    Attributes:
      task: what was asked.
      images: the decoded images of each sentence, (I, H, W, 3); the last one is the truth.
      answers: predictor -> its answers to each sentence; of several answers to one, the scores are averaged.
    """

    task: AskedTask
    images: Sequence[UInt8[np.ndarray, "I H W 3"]]
    answers: Mapping[str, Sequence[Pictures]]

    def scores(self, predictor: str) -> list[States]:
        """The scores of a predictor for each sentence, before the division."""
        return scores(self.task.score, self.answers[predictor], truths(self.task, self.images))


class AnswersEvaluator:
    """Scores answers to held-out sentences, for each task that `ControlsEvaluator` has.

    Results for each TASK:
      TASK/sentences: how many.
      TASK/metric, TASK/better: which score the others are, and whether "more" or "less" of it is better.
      TASK/model: of the decoder.
      TASK/copy: of the last answer of the pairs, or of the image before.
      TASK/mean: of the mean, pixel by pixel, of the pairs' answers, or of the images before.
      TASK/nearest: of pairs, the answer of the pair whose query is nearest.
      TASK/query: of pairs, the query itself.
      TASK/control_other_query, TASK/control_shuffled: of the decoder with another sentence's query, and after pairs
        with shuffled answers.
      TASK/nearer_than_copy: in how many sentences the decoder's score is better than the copy's.
    A score without anything to measure, and a control that cannot be made, is absent.

    Args:
      sentences: held out.
      max_sentences: of each task, evenly spread; 0 takes all.
      drawing: how answers are drawn; greedily by default.
      controls: whether to ask again with one thing changed, which takes three times the time.
      seed: of all draws.
      batch_size: prompts to answer at once.
    """

    name = "answers"

    def __init__(
        self,
        sentences: Sequence[VisualSentence],
        *,
        max_sentences: int = 24,
        drawing: Defaults = GREEDY,
        controls: bool = False,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        self._tasks = asked_tasks(sentences, max_sentences)
        self._drawing, self._controls = drawing, controls
        self._seed, self._batch_size = seed, batch_size

    def run(self, subject: Subject) -> Result:
        """Answers and scores."""
        return self.score(self.answer(subject))

    def answer(self, subject: Subject) -> list[Answered]:
        """The first half of `run`: every predictor's answers."""
        return [
            self._answer(subject, task) for task in tqdm(self._tasks, desc=self.name, unit="task")
        ]

    def score(self, answered: Sequence[Answered]) -> Result:
        """The second half of `run`; see the class for the results."""
        result: Result = {}
        for one in answered:
            task, (metric, more) = one.task, HEADLINES[one.task.score]
            each = {predictor: one.scores(predictor) for predictor in one.answers}
            numbers: Result = {"sentences": len(task.sentences), "metric": metric}
            numbers["better"] = "more" if more else "less"
            for predictor, states in each.items():
                value = mean_score(task.score, states)
                numbers |= {} if math.isnan(value) else {predictor: value}
            numbers["nearer_than_copy"] = _wins(task.score, each[MODEL], each["copy"])
            result |= {f"{task.name}/{name}": value for name, value in numbers.items()}
        return result

    def _answer(self, subject: Subject, task: AskedTask) -> Answered:
        images = decoded(subject, task.sentences)
        asked = {MODEL: task.sentences, **(_changed(task, self._seed) if self._controls else {})}
        answers: dict[str, Sequence[Pictures]] = {}
        for name, sentences in asked.items():
            drawn = draw(
                subject,
                sentences,
                self._drawing.sampling,
                self._drawing.candidates,
                seed=self._seed,
                batch_size=self._batch_size,
            )
            answers[name] = drawn.shown(self._drawing.answer)
        return Answered(task, images, answers | baselines(images, task.period))


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Candidates for the last image of some sentences.

    Attributes:
      pictures_MBHWC: in [0, 1].
      log_likelihood_MB: see `Engine.generate_scored`.
    """

    pictures_MBHWC: Float[np.ndarray, "M B H W 3"]
    log_likelihood_MB: Float[np.ndarray, "M B"]

    def shown(self, answer: str, candidates: int | None = None) -> list[Pictures]:
        """What `answer` makes of the first candidates of each sentence; see `Defaults`."""
        return [
            to_uint8(answers_of(pictures[:candidates], likelihood[:candidates], answer))
            for pictures, likelihood in zip(self.pictures_MBHWC, self.log_likelihood_MB)
        ]


def asked_tasks(sentences: Sequence[VisualSentence], max_sentences: int) -> list[AskedTask]:
    """The tasks of held-out sentences, in order of their names; see `AnswersEvaluator`."""
    tasks = []
    for name, same in sorted(by_task(sentences).items()):
        kept = equally_long(same)
        chosen = [kept[i] for i in spread(len(kept), max_sentences)]
        roles = chosen[0].roles
        tasks.append(AskedTask(name, OF_ROLE.get(roles[-1], PICTURE), period_of(roles), chosen))
    return tasks


def draw(
    subject: Subject,
    sentences: Sentences,
    sampling: Sampling,
    candidates: int,
    *,
    seed: int,
    batch_size: int,
) -> Drawn:
    """Draws candidates for the last image of each sentence."""
    codes, likelihoods = [], []
    for start in range(0, len(sentences), batch_size):
        batch = sentences[start : start + batch_size]
        made_RBIN, likelihood_RB = subject.engine.generate_scored(
            [sentence.codes[:-1].astype(np.int32) for sentence in batch],
            n_candidates=candidates,
            sampling=sampling,
            seed=seed,
        )
        codes.append(made_RBIN[:, :, 0])
        likelihoods.append(likelihood_RB)
    codes_MBN = np.concatenate(codes)
    flat = decode_codes(subject.vqgan, codes_MBN.reshape(-1, codes_MBN.shape[-1]))
    pictures = flat.reshape(*codes_MBN.shape[:2], *flat.shape[1:])
    return Drawn(pictures, np.concatenate(likelihoods))


def decoded(subject: Subject, sentences: Sentences) -> list[UInt8[np.ndarray, "I H W 3"]]:
    """The images of sentences with equally many."""
    codes = np.concatenate([sentence.codes for sentence in sentences])
    images = to_uint8(decode_codes(subject.vqgan, codes))
    return list(images.reshape(len(sentences), -1, *images.shape[1:]))


def baselines(
    images: Sequence[UInt8[np.ndarray, "I H W 3"]], period: int
) -> dict[str, list[Pictures]]:
    """The answers of the predictors without a network to each sentence; see `AnswersEvaluator`."""
    each = [_baselines(one, period) for one in images]
    return {name: [answers[name][None] for answers in each] for name in each[0]}


def truths(task: AskedTask, images: Sequence[UInt8[np.ndarray, "I H W 3"]]) -> list[Picture]:
    """The true answer of each sentence; see `read_back`."""
    return [read_back(task.score, one[-1]) for one in images]


def scores(score: str, answers: Sequence[Pictures], wanted: Sequence[Picture]) -> list[States]:
    """The score of each sentence, over all answers to it, against the wanted one."""
    return [
        functools.reduce(metric_states.merge, (SCORES[score](made, truth) for made in several))
        for several, truth in zip(answers, wanted, strict=True)
    ]


def mean_score(score: str, each: Sequence[States]) -> float:
    """The headline of a score over sentences; NaN if no truth has anything to measure."""
    return headline(score, functools.reduce(metric_states.merge, each))


def read_back(score: str, shown: Picture) -> Picture:
    """The annotation that a decoded truth shows.

    Where two areas meet, a tokenizer shows a colour between theirs, which may be that of a third class; and a black
    ground is not quite black.

    Args:
      score: a key of `SCORES`.
      shown: the truth, decoded.

    Returns:
      maps of classes in the colours of the classes that cover at least a hundredth of the picture, each pixel in the
      nearest; depth with a black ground; all else as it is.
    """
    if score == "classes":
        ids, counts = np.unique(maps.rgb_to_ids(shown), return_counts=True)
        found = ids[counts >= _LEAST_AREA * counts.sum()]
        colours = maps.ids_to_rgb(found)
        return colours[maps.nearest(shown, colours)]
    if score == "depth":
        ground = shown.mean(-1) < _LEAST_LEVEL
        return np.where(ground[..., None], np.uint8(0), shown)
    return shown


def _baselines(images: UInt8[np.ndarray, "I H W 3"], period: int) -> dict[str, Picture]:
    if period == 1:
        return {"copy": images[-2], "mean": _mean(images[:-1])}
    pairs = images.reshape(-1, period, *images.shape[1:])
    answers, queries = pairs[:-1, -1], pairs[:, :-1].astype(np.float32)
    distances = ((queries[:-1] - queries[-1:]) ** 2).reshape(len(answers), -1).mean(-1)
    return {
        "copy": answers[-1],
        "nearest": answers[int(np.argmin(distances))],
        "mean": _mean(answers),
        "query": images[-2],
    }


def _mean(pictures: UInt8[np.ndarray, "A H W 3"]) -> Picture:
    return np.round(pictures.astype(np.float64).mean(axis=0)).astype(np.uint8)


def _changed(task: AskedTask, seed: int) -> dict[str, Sentences]:
    """The sentences with one thing changed; only pairs have such controls here."""
    if task.period == 1:
        return {}
    pairs = AnswerTask(task.name, task.period, task.sentences)
    controls = {
        "control_other_query": changed.with_other_query(pairs, seed),
        "control_shuffled": changed.with_shuffled_answers(pairs, seed),
    }
    return {name: sentences for name, sentences in controls.items() if sentences is not None}


def _wins(score: str, ours: Sequence[States], theirs: Sequence[States]) -> int:
    """In how many sentences our score is better."""
    sign = 1 if HEADLINES[score].more_is_better else -1
    pairs = [(headline(score, a), headline(score, b)) for a, b in zip(ours, theirs)]
    return sum(sign * a > sign * b for a, b in pairs)  # NaN compares as False
