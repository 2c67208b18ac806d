"""Does an answer depend on what is asked? The loss of the true last image, with one thing taken away at a time.

A low loss on answers can mean that the decoder reads the query and its pairs, or that it knows what answers of this
task look like. Controls tell the two apart: the answer stays the true one, the query or the pairs are not its own.

S: sentences of a task.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from lvm_jax.data.sentences.held_out import last_images
from lvm_jax.data.sentences.visual_sentence import VisualSentence, period_of
from lvm_jax.data.splits import spread
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm import changed_sentences as changed
from lvm_jax.evaluation.lvm.changed_sentences import AnswerTask, Sentences
from lvm_jax.evaluation.lvm.scoring import SentenceScore
from lvm_jax.evaluation.lvm.sentence_tasks import by_task, equally_long

Score = Callable[[Sequence[VisualSentence]], Sequence[SentenceScore]]

# What a thing is worth -> the control that takes it away.
_USES = {
    "uses_query": "other_query",
    "uses_pairs": "shuffled_answers",
    "uses_task": "other_task",
    "uses_last": "other_last",
    "uses_order": "shuffled_context",
}


class ControlsEvaluator:
    """Losses of true answers, right and with one thing changed, in nats a code, for each task.

    A task is what a source asks for: `scenes: image -> depth` for sentences of pairs (also of three images, as in
    `scenes: image, depth -> normals`), `walks: next frame` for videos and turntables. All numbers of a task are over
    the same sentences, with equally many pairs or images: as many as at least half of them have, the last ones; shorter
    sentences are left out.

    Results for each TASK of pairs:
      TASK/sentences, TASK/pairs: how many sentences, and pairs before the query.
      TASK/right: nothing is changed.
      TASK/other_query: the query is another sentence's.
      TASK/shuffled_answers: the answers of the pairs are permuted, so that none stays with its image; of a single pair,
        the answer is another sentence's.
      TASK/other_pairs: the pairs are another sentence's of this task.
      TASK/other_task: the pairs are of another task, one with other roles.
      TASK/no_pairs, TASK/one_pair: the query alone, and after the last pair.
      TASK/uses_query = other_query - right, TASK/uses_pairs = shuffled_answers - right, TASK/uses_task = other_task -
        right.
    for each TASK of sequences:
      TASK/sentences, TASK/context: how many sentences, and images before the last.
      TASK/right, TASK/no_context.
      TASK/other_last: the image before the last is another sentence's.
      TASK/shuffled_context: the images before the last are permuted, so that none stays in its place.
      TASK/uses_last = other_last - right, TASK/uses_order = shuffled_context - right.
    and in all:
      left_out: sentences of several images that are neither, or are too short.

    NUMBER_error is the standard error over sentences; of `uses_...`, that of the paired difference. What cannot be
    measured has no result: with one sentence there is no other query and no error.

    Args:
      sentences: held out.
      max_sentences: of each task, evenly spread; 0 takes all. Each is scored seven times.
      seed: of the draws.
    """

    name = "controls"

    def __init__(
        self, sentences: Sequence[VisualSentence], *, max_sentences: int = 64, seed: int = 0
    ) -> None:
        found = {name: equally_long(same) for name, same in sorted(by_task(sentences).items())}
        several = sum(len(sentence.codes) > 1 for sentence in sentences)
        self._left_out = several - sum(map(len, found.values()))
        chosen = {
            name: [kept[i] for i in spread(len(kept), max_sentences)]
            for name, kept in found.items()
        }
        answers = [
            AnswerTask(name, period_of(same[0].roles), same)
            for name, same in chosen.items()
            if period_of(same[0].roles) > 1
        ]
        # Task -> its size, and control -> the sentences to score, all with the true answer at the end.
        self._sizes: dict[str, Result] = {}
        self._asked: dict[str, dict[str, Sentences]] = {}
        for task in answers:
            self._sizes[task.name] = {"sentences": len(task.sentences), "pairs": task.pairs}
            self._asked[task.name] = _questions(task, answers, seed)
        for name in [name for name in chosen if name not in self._asked]:
            clips = chosen[name]
            self._sizes[name] = {"sentences": len(clips), "context": len(clips[0].codes) - 1}
            self._asked[name] = _continuations(clips, seed)

    def run(self, subject: Score) -> Result:
        """Scores the last images under a decoder, such as a `Scorer`; see the class for the results."""
        result: Result = {"left_out": self._left_out}
        for task, asked in self._asked.items():
            # One call a task, so that batches of all controls are full.
            scores = iter(subject([s for sentences in asked.values() for s in sentences]))
            losses = {
                control: np.array([next(scores).nll_IN[-1].mean() for _ in sentences], np.float64)
                for control, sentences in asked.items()
            }
            numbers = self._sizes[task] | _numbers(losses)
            result |= {f"{task}/{name}": value for name, value in numbers.items()}
        return result


def _questions(task: AnswerTask, tasks: Sequence[AnswerTask], seed: int) -> dict[str, Sentences]:
    """The sentences of each control; a control that cannot be made is absent."""
    return _made(
        {
            "right": task.sentences,
            "other_query": changed.with_other_query(task, seed),
            "shuffled_answers": changed.with_shuffled_answers(task, seed),
            "other_pairs": changed.with_other_pairs(task, seed),
            "other_task": changed.with_other_task(task, tasks, seed),
            "no_pairs": [last_images(s, task.period) for s in task.sentences],
            "one_pair": [last_images(s, 2 * task.period) for s in task.sentences],
        }
    )


def _continuations(clips: Sentences, seed: int) -> dict[str, Sentences]:
    """The clips of each control; a control that cannot be made is absent."""
    return _made(
        {
            "right": clips,
            "other_last": changed.with_other_last(clips, seed),
            "shuffled_context": changed.with_shuffled_context(clips, seed),
            "no_context": [last_images(clip, 1) for clip in clips],
        }
    )


def _made(controls: Mapping[str, Sentences | None]) -> dict[str, Sentences]:
    return {name: sentences for name, sentences in controls.items() if sentences is not None}


def _numbers(losses: Mapping[str, Float[np.ndarray, " S"]]) -> Result:
    """Means and standard errors of the losses, and of what each control costs."""
    costs = {
        name: losses[control] - losses["right"]
        for name, control in _USES.items()
        if control in losses
    }
    numbers: Result = {}
    for name, values_S in {**losses, **costs}.items():
        numbers[name] = float(values_S.mean())
        if len(values_S) > 1:
            numbers[f"{name}_error"] = float(values_S.std(ddof=1)) / math.sqrt(len(values_S))
    return numbers
