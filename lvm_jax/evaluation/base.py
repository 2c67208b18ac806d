"""The interface of every evaluator: a name, and a `run` that scores a subject and returns flat results.

The same evaluator serves the scripts, which score a finished model, and the training loop, which scores its state
through `WhileTraining`. Only the way the subject is made differs.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

from lvm_jax.errors import UserError

Value = float | int | str
Result = dict[str, Value]

Subject = TypeVar("Subject")
_Judged = TypeVar("_Judged", contravariant=True)


class Evaluator(Protocol[_Judged]):
    """Scores a subject, such as a tokenizer or a decoder behind a `Scorer`.

    An evaluator owns its data and reads it when it is constructed, so a mistake in the data shows before training
    starts.

    Attributes:
      name: the key of its results where several evaluations are collected.
    """

    name: str

    def run(self, subject: _Judged) -> Result:
        """Results by name, with "/" between the levels of a name. A string says why a number is missing."""
        ...


def check_periods(periods: Mapping[str, int], known: Collection[str]) -> None:
    """Requires periods of known evaluators, each in steps; 0 means never.

    Raises:
      UserError: otherwise.
    """
    for name, steps in periods.items():
        if name not in known:
            raise UserError(f"config.evaluators.{name} does not exist; known: {', '.join(known)}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise UserError(
                f"config.evaluators.{name} is {steps!r}: a number of steps, 0 for never"
            )


class WhileTraining(Generic[Subject]):
    """An evaluator as the training loop calls it: (step, state) -> numbers to log.

    Args:
      prefix: "PREFIX/" precedes the names in metrics.jsonl.
      evaluator: scores the subject.
      subject: makes the subject from the training state.
      names: result -> its name in metrics.jsonl; results not listed are not logged. By default all are, under their
        own names.
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
        """Runs the evaluator; returns its numbers under their names in metrics.jsonl."""
        del step
        return logged(self._prefix, self._evaluator.run(self._subject(state)), self._names)


def logged(
    prefix: str, results: Result, names: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Results under their names in metrics.jsonl; see `WhileTraining` for the arguments.

    Drops strings, since metrics.jsonl holds only numbers.
    """
    chosen = dict(zip(results, results)) if names is None else names
    return {
        f"{prefix}/{name}": value
        for result, name in chosen.items()
        if not isinstance(value := results[result], str)
    }
