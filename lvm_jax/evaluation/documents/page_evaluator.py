"""Scores of a model that reads pages, each beside what it scores without the page.

A model that has learnt what pages usually say scores well on them unread, and one that ignores its picture says the
same of every page. So every question is asked four times:

| name | picture |
|---|---|
| model | its page |
| other_page | another page, about which another answer is true |
| blank | a white page of the same size |
| no_picture | none |
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.documents.answer_scores import check_installed, score
from lvm_jax.evaluation.documents.page_questions import PageQuestion, PageSet, Picture
from lvm_jax.inference.text_generator import Asked

Answers = list[str]
WHITE = 255


class PageReader(Protocol):
    """What is scored: it answers a batch of questions, such as a `TextGenerator`."""

    def __call__(self, asked: Sequence[Asked]) -> Sequence[str]:
        """The answers."""
        ...


Shown = Callable[[int], tuple[Picture, ...]]


class PageEvaluator:
    """Scores a page set: `CONTROL/SCORE` for each control of the module; see `answer_scores.score`.

    Args:
      pages: the questions.
      batch_size: questions asked at once.
      controls: False asks only with the page.
      elsewhere: questions of other sets, whose pages serve as other pages if all answers of this one are the same.

    Raises:
      UserError: controls are wanted, and there is no other page for a question; or see `check_installed`.
    """

    def __init__(
        self,
        pages: PageSet,
        *,
        batch_size: int = 8,
        controls: bool = True,
        elsewhere: Sequence[PageQuestion] = (),
    ) -> None:
        check_installed(pages.kind)
        self.name, self._pages, self._batch_size = pages.name, pages, batch_size
        self._others = others(pages.questions, elsewhere) if controls else []

    def run(self, subject: PageReader) -> Result:
        """Asks all questions and scores the answers."""
        return self.scored(self.answers(subject))

    def answers(self, subject: PageReader) -> dict[str, Answers]:
        """Control -> the answers to all questions."""
        questions = self._pages.questions
        shown: dict[str, Shown] = {"model": lambda i: (questions[i].picture(),)}
        if self._others:
            shown |= {
                "other_page": lambda i: (self._others[i].picture(),),
                "blank": lambda i: (np.full_like(questions[i].picture(), WHITE),),
                "no_picture": lambda i: (),
            }
        total = len(shown) * len(questions)
        with tqdm(total=total, desc=self.name, unit="question") as progress:
            return {
                control: self._asked(subject, pictures, progress)
                for control, pictures in shown.items()
            }

    def scored(self, answers: Mapping[str, Answers]) -> Result:
        """The second half of `run`."""
        truths = [question.answers for question in self._pages.questions]
        result: Result = {"questions": len(truths)}
        for control, said in answers.items():
            found = score(self._pages.kind, said, truths)
            result |= {f"{control}/{name}": value for name, value in found.items()}
        return result

    def _asked(self, subject: PageReader, shown: Shown, progress: tqdm) -> Answers:
        said: Answers = []
        questions = self._pages.questions
        for start in range(0, len(questions), self._batch_size):
            numbers = range(start, min(start + self._batch_size, len(questions)))
            said += subject([Asked.of(shown(i), questions[i].question) for i in numbers])
            progress.update(len(numbers))
        return said


def others(
    questions: Sequence[PageQuestion], elsewhere: Sequence[PageQuestion] = ()
) -> list[PageQuestion]:
    """For each question one about another page, with another answer: else a model that never looks would be right too.

    It is of the same set, half the set away where that will do; in a set whose answers are all the same it is of
    `elsewhere`, rather one that asks the same.

    Raises:
      UserError: there is none.
    """
    found = []
    for i, question in enumerate(questions):
        alike = [q for q in elsewhere if q.question == question.question]
        unlike = [q for q in elsewhere if q.question != question.question]
        ways = itertools.chain(
            _from(questions, i + len(questions) // 2), _from(alike, i), _from(unlike, i)
        )
        other = next((q for q in ways if _is_other(question, q)), None)
        if other is None:
            raise UserError(
                f"no question has another page and another answer than {question.key!r}, which a control needs: add "
                "one, or pass --nocontrols"
            )
        found.append(other)
    return found


def _from(questions: Sequence[PageQuestion], start: int) -> Iterator[PageQuestion]:
    """All of them, beginning with number `start`, counted on from the first behind the last."""
    return (questions[(start + k) % len(questions)] for k in range(len(questions)))


def _is_other(one: PageQuestion, two: PageQuestion) -> bool:
    return one.page != two.page and not set(one.answers) & set(two.answers)
