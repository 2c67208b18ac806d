"""Formats numbers for people, as plain text."""

import math
from typing import Any

_LETTERS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def number(value: Any, digits: int = 3) -> str:
    """A number with `digits` significant figures: 0.0123, 1.23, 123, 12,345. None becomes a dash; text is unchanged."""
    if not is_number(value):
        return "–" if value is None else str(value)
    if isinstance(value, int) or value == 0:
        return f"{value + 0:,.0f}"  # + 0: a zero has no sign
    rounded = f"{value:.{digits - 1}e}"  # whose exponent is that of what is shown: 9.999 is 10.0
    exponent = int(rounded.partition("e")[2]) if math.isfinite(value) else 0
    if not -4 <= exponent < 15:
        return f"{value:.{digits}g}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def apart(value: float, limit: float) -> str:
    """A number with as many figures as tell it from another: 0.1004 beside 0.1, where three figures would say 0.100."""
    for digits in range(3, 9):
        text, other = number(value, digits), number(limit, digits)
        if value == limit or float(text.replace(",", "")) != float(other.replace(",", "")):
            return text
    return repr(value)


def hundredths(value: float) -> str:
    """A difference with two decimals; what rounds to nothing has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"


def short(value: float) -> str:
    """A large number with a letter for the power of a thousand: 656k, 2.05M, 12.2T."""
    # Of the rounded value: 999,999 is 1M.
    exponent = int(f"{max(value, 1):.2e}".partition("e")[2])
    power = min(len(_LETTERS) - 1, exponent // 3)
    return f"{value / 1000**power:.3g}{_LETTERS[power]}"


def percent(value: float, limit: float | None = None) -> str:
    """0.123 as 12.3%; beside a limit with as many decimals as tell it from that: 59.96% beside 60%."""
    if float(round(100 * value, 9)).is_integer():  # 99.99% reads 100.0%, and only all of it 100%
        return f"{100 * value:.0f}%"
    for decimals in range(1, 7):
        text = f"{100 * value:.{decimals}f}"
        if limit is None or value == limit or text != f"{100 * limit:.{decimals}f}":
            return f"{text}%"
    return f"{100 * value!r}%"


def is_number(value: Any) -> bool:
    """Whether a value is a number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
