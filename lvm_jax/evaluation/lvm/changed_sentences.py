"""Sentences with one thing changed, so that a decoder's loss tells whether the thing matters.

Every draw is a hash of the seed and the sentences' keys, so it depends neither on the order of the sentences nor on the
machine. A change that would change nothing, such as a query swapped for an equal one, is not a control: then the
functions take another donor, or return None.

I: images of a sentence, N: tokens per image.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt16, UInt32

from lvm_jax.data.sentences.held_out import last_images
from lvm_jax.data.sentences.visual_sentence import VisualSentence, compact_layout
from lvm_jax.data.splits import stable_fraction

Codes = UInt16[np.ndarray, "_ N"] | UInt32[np.ndarray, "_ N"]
Sentences = list[VisualSentence]


@dataclasses.dataclass(frozen=True)
class AnswerTask:
    """Sentences that ask for the same: all have the same roles, and so the same number of pairs and a query.

    A pair has `period` images, of which the last is the answer; the last pair's other images are the query.

    Attributes:
      name: for people, such as `scenes: image -> depth`.
      period: images of a pair, at least 2.
      sentences: (pairs + 1) * period images each, with at least one pair before the query.
    """

    name: str
    period: int
    sentences: Sentences

    @property
    def roles(self) -> list[str]:
        """Of one pair."""
        return self.sentences[0].roles[-self.period :]

    @property
    def pairs(self) -> int:
        """Before the query."""
        return len(self.sentences[0].codes) // self.period - 1

    @property
    def shown(self) -> int:
        """Images of the pairs before the query."""
        return self.pairs * self.period


def with_other_query(task: AnswerTask, seed: int) -> Sentences | None:
    """Each sentence with the query of another; None if some query has no other that differs from it."""
    queries = [s.codes[task.shown : -1] for s in task.sentences]
    return _swapped(task.sentences, queries, slice(task.shown, -1), f"{seed}/query")


def with_other_pairs(task: AnswerTask, seed: int) -> Sentences | None:
    """Each sentence with all pairs of another; None if some pairs have no others that differ from them."""
    pairs = [s.codes[: task.shown] for s in task.sentences]
    return _swapped(task.sentences, pairs, slice(0, task.shown), f"{seed}/pairs")


def with_shuffled_answers(task: AnswerTask, seed: int) -> Sentences | None:
    """Each sentence with its pairs' answers permuted, so that none stays with its image.

    With one pair, which leaves nothing to permute, the answer comes from another sentence's pair; None if there is none
    that differs.
    """
    answers = slice(task.period - 1, task.shown, task.period)
    if task.pairs == 1:
        of_pair = [s.codes[answers] for s in task.sentences]
        return _swapped(task.sentences, of_pair, answers, f"{seed}/answer")

    def shuffled(sentence: VisualSentence) -> VisualSentence:
        order = deranged(task.pairs, f"{seed}/answers/{sentence.key}")
        return _replaced(sentence, answers, sentence.codes[answers][order])

    return [shuffled(sentence) for sentence in task.sentences]


def with_other_task(task: AnswerTask, others: Sequence[AnswerTask], seed: int) -> Sentences | None:
    """Each sentence's query and answer after as many pairs of another task.

    A task with the same roles is the same task from another source, so it does not count. Pairs have to be as long, so
    that the context stays as long.

    Returns:
      None if no other task has such pairs.
    """
    fitting = {
        other.name: other
        for other in others
        if other.roles != task.roles and other.period == task.period and other.pairs >= task.pairs
    }
    if not fitting:
        return None

    def after_other_pairs(sentence: VisualSentence) -> VisualSentence:
        # The task first: drawn among all sentences, the largest task would give nearly all pairs.
        name = f"{seed}/task/{sentence.key}"
        other = fitting[min(fitting, key=lambda task: stable_fraction(f"{name}/{task}"))]
        donor = min(other.sentences, key=lambda s: stable_fraction(f"{name}/{s.key}"))
        kept = last_images(donor, task.shown + task.period)
        codes = np.concatenate([kept.codes[: task.shown], sentence.codes[task.shown :]])
        roles = kept.roles[: task.shown] + sentence.roles[task.shown :]
        layout = compact_layout(roles)
        return dataclasses.replace(sentence, codes=codes, layout=layout)

    return [after_other_pairs(sentence) for sentence in task.sentences]


def with_other_last(sentences: Sentences, seed: int) -> Sentences | None:
    """Each clip with another clip's last image before the target; None if one has no other that differs."""
    return _swapped(sentences, [s.codes[-2:-1] for s in sentences], slice(-2, -1), f"{seed}/last")


def with_shuffled_context(sentences: Sentences, seed: int) -> Sentences | None:
    """Each clip with the images before the target permuted, so that none stays; None if there is only one."""

    def shuffled(sentence: VisualSentence) -> VisualSentence:
        context = slice(0, len(sentence.codes) - 1)
        order = deranged(len(sentence.codes) - 1, f"{seed}/context/{sentence.key}")
        return _replaced(sentence, context, sentence.codes[context][order])

    return [shuffled(s) for s in sentences] if len(sentences[0].codes) > 2 else None


def donors(names: Sequence[str], differ: Callable[[int, int], bool]) -> list[int] | None:
    """For each of some things the number of another that differs from it; None if one has none.

    Args:
      names: of the things; they decide the draw.
      differ: whether two of them, by number, differ.
    """
    # Everyone takes from the next in a circle: each gives once, as long as all differ.
    circle = sorted(range(len(names)), key=lambda i: stable_fraction(names[i]))
    found = {}
    for at, i in enumerate(circle):
        following = (*circle[at + 1 :], *circle[:at])
        donor = next((j for j in following if differ(i, j)), None)
        if donor is None:
            return None
        found[i] = donor
    return [found[i] for i in range(len(names))]


def deranged(count: int, name: str) -> list[int]:
    """A permutation of 0..count - 1 that leaves nothing in its place, drawn by `name`; `count` is at least 2."""
    circle = sorted(range(count), key=lambda i: stable_fraction(f"{name}/{i}"))
    following = dict(zip(circle, (*circle[1:], circle[0])))
    return [following[i] for i in range(count)]


def _swapped(
    sentences: Sentences, things: Sequence[Codes], where: slice, draw: str
) -> Sentences | None:
    """Each sentence with another's thing in the place of its own."""
    chosen = donors(
        [f"{draw}/{s.key}" for s in sentences],
        lambda i, j: not np.array_equal(things[i], things[j]),
    )
    if chosen is None:
        return None
    return [_replaced(s, where, things[donor]) for s, donor in zip(sentences, chosen)]


def _replaced(sentence: VisualSentence, where: slice, images: Codes) -> VisualSentence:
    codes = sentence.codes.copy()
    codes[where] = images
    return dataclasses.replace(sentence, codes=codes)
