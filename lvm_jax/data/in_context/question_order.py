"""Which question is asked where in an endless series, and how often it was asked before.

Shape legend: Q questions, R places that are asked for.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from lvm_jax.data.dealing import EvenDealer, occurrence
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.errors import UserError

# A pass has every question at least once; shares are kept to this fineness.
_PASS = 10_000
_BLOCK = 100  # places that are dealt at a time


class QuestionOrder:
    """Deals questions by their shares, evenly over any stretch of the series.

    Attributes:
      shares: of the questions; they sum to 1.
    """

    def __init__(self, shares: Float64[np.ndarray, " Q"], seed: int):
        self._dealer = EvenDealer(np.ceil(shares * _PASS).astype(np.int64), _BLOCK, seed)
        self._pass = int(self._dealer.counts.sum())
        self.shares = tuple((self._dealer.counts / self._pass).tolist())

    def at(self, places: range) -> tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"]]:
        """The number of the question at each of consecutive places, and how many places before asked it."""
        questions, nths, place = [], [], places.start
        while place < places.stop:
            number, within = divmod(place, self._pass)
            block = self._dealer.find(within)
            dealt = self._dealer.types(number, block)
            first = within - self._dealer.begin(block)
            here = slice(first, min(first + places.stop - place, len(dealt)))
            before = number * self._dealer.counts + self._dealer.before(block)
            questions.append(dealt[here])
            nths.append((before[dealt] + occurrence(dealt))[here])
            place += len(questions[-1])
        return np.concatenate(questions), np.concatenate(nths)


def shares_of(
    questions: Sequence[Question], records: Sequence[int], given: Mapping[str, float] | None
) -> Float64[np.ndarray, " Q"]:
    """The share that each question gets; they sum to 1.

    Args:
      questions: to ask.
      records: of each.
      given: question's name in lower case -> share, relative to the others; None: proportional to the square root of
        the number of its records (arXiv 2312.02520, section 3.4).

    Raises:
      UserError: no question, one twice, or shares that are not one number above 0 for each.
    """
    names = [question.name.lower() for question in questions]
    if not names or len(set(names)) < len(names):
        raise UserError(f"the questions are {names or 'none'}: ask at least one, each once")
    if given is None:
        wanted = np.sqrt(np.array(records, np.float64))
    else:
        if set(given) != set(names) or not all(0 < share < math.inf for share in given.values()):
            raise UserError(
                f"shares are {dict(given)}: give each of {', '.join(names)} a number above 0, and nothing else"
            )
        wanted = np.array([given[name] for name in names], np.float64)
    return wanted / wanted.sum()
