"""What every evaluation has: a name, and `run`, which judges a subject and returns flat, JSON-able results."""

from typing import Protocol, TypeVar

Value = float | int | str
Result = dict[str, Value]

Subject = TypeVar("Subject", contravariant=True)


class Evaluator(Protocol[Subject]):
    """Judges a subject: a tokenizer, or a decoder's scores of held-out sentences.

    Attributes:
      name: prefix of its results where several evaluations are collected.
    """

    name: str

    def run(self, subject: Subject) -> Result:
        """Results by name; parts of a name are joined by "/". A text says why a number is missing."""
        ...
