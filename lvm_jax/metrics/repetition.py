"""Text that runs in circles: the failure that greedy decoding of long pages is known for.

A token is a character, a word or an id: whatever can be compared.
"""

from collections.abc import Hashable, Sequence


def repeated_ngrams(tokens: Sequence[Hashable], n: int = 4) -> float:
    """The share of n-grams that occurred before, in [0, 1] (seq-rep-n; Welleck et al., arXiv 1908.04319, section 6).

    Tables repeat much that is right, so compare it with the truth's own share.
    """
    ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def ending_loop(tokens: Sequence[Hashable], *, longest: int = 200, times: int = 4) -> int:
    """How many tokens at the end are one passage said over and over; 0 if there is no such loop.

    Args:
      tokens: of the text.
      longest: tokens of the longest passage that is looked for.
      times: repetitions that make a loop. A passage of fewer than four tokens must fill as many as four would: a row of
        dots is no loop.
    """
    least = 4 * times
    for period in range(1, min(longest, len(tokens) // times) + 1):
        length = period
        while length < len(tokens) and tokens[-length - 1] == tokens[-length - 1 + period]:
            length += 1
        if length >= max(times * period, least):
            return length
    return 0
