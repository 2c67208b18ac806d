"""Questions about pages with their true answers, and the sets that hold them.

H, W: pixels of a page.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from lvm_jax.errors import UserError
from lvm_jax.evaluation.documents.answer_scores import Kind
from lvm_jax.pictures.decode import BadImage

Picture = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class PageQuestion:
    """A question about one page.

    Attributes:
      key: where it came from.
      page: identifies the picture: questions about the same page share it.
      load: reads the picture.
      question: in words; "" shows the page alone.
      answers: that count as true, at least one.
    """

    key: str
    page: str
    load: Callable[[], Picture]
    question: str
    answers: tuple[str, ...]

    def picture(self) -> Picture:
        """The page.

        Raises:
          UserError: it cannot be read. Skipping it would change the benchmark.
        """
        try:
            return self.load()
        except BadImage as error:
            raise UserError(f"the data set is damaged: {error}; download the file again") from error


@dataclasses.dataclass(frozen=True)
class PageSet:
    """Questions that are scored together.

    Attributes:
      name: of the results.
      kind: how answers are scored.
      questions: at least one.
    """

    name: str
    kind: Kind
    questions: tuple[PageQuestion, ...]

    def __post_init__(self) -> None:
        if not self.questions:
            raise UserError(f"{self.name} has 0 questions: check its folder")
        for question in self.questions:
            if not question.answers:
                raise UserError(
                    f"{self.name}: question {question.key!r} has 0 answers: score a split that has them"
                )

    def asking(self, question: str) -> "PageSet":
        """The same pages and answers, with one question for all."""
        changed = (dataclasses.replace(one, question=question) for one in self.questions)
        return dataclasses.replace(self, questions=tuple(changed))
