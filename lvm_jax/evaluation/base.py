"""The one shape of an evaluation: it has a name, and `run` judges a subject and returns flat results.

The same evaluator serves the scripts, which judge a finished model, and the training loop, which judges its state
through `WhileTraining`. What differs between the two is only how a subject is made.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

Value = float | int | str
Result = dict[str, Value]

Subject = TypeVar("Subject")
_Judged = TypeVar("_Judged", contravariant=True)


class Evaluator(Protocol[_Judged]):
    """Judges a subject, such as a tokenizer or a decoder's scores of sentences.

    The data is the evaluator's own, read when it is made: a mistake in it shows before the first step of a training.

    Attributes:
      name: what its results stand under where several evaluations are collected.
    """

    name: str

    def run(self, subject: _Judged) -> Result:
        """Results by name; "/" joins the parts of a name. A string says why a number is missing."""
        ...


class WhileTraining(Generic[Subject]):
    """An evaluator as the training loop calls it: (step, state) -> numbers to log.

    Args:
      prefix: comes before the names in metrics.jsonl, with "/" between.
      evaluator: judges.
      subject: makes the evaluator's subject from a training's state.
      names: result -> its name in metrics.jsonl; other results are not logged. By default all are, as they are
        named.
    """

    def __init__(
        self,
        prefix: str,
        evaluator: Evaluator[Subject],
        subject: Callable[[Any], Subject],
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._prefix, self._evaluator, self._subject, self._names = (
            prefix,
            evaluator,
            subject,
            names,
        )

    def __call__(self, step: int, state: Any) -> dict[str, float]:
        """The evaluator's numbers, under the names of metrics.jsonl."""
        del step
        return logged(self._prefix, self._evaluator.run(self._subject(state)), self._names)


def logged(
    prefix: str, results: Result, names: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Results under the names of metrics.jsonl; for the arguments see `WhileTraining`.

    metrics.jsonl holds numbers only, so strings are dropped.
    """
    chosen = dict(zip(results, results)) if names is None else names
    return {
        f"{prefix}/{name}": value
        for result, name in chosen.items()
        if not isinstance(value := results[result], str)
    }
