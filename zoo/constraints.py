"""What the numbers among a model's options may be."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NamedTuple


class Range(NamedTuple):
    """What a number may be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


FRACTION = Range("between 0 and 1", lambda x: 0 <= x <= 1)
NOT_NEGATIVE = Range("0 or more", lambda x: 0 <= x < math.inf)
POSITIVE = Range("above 0", lambda x: 0 < x < math.inf)
COUNT = Range("a whole number of 1 or more", lambda x: is_whole(x) and x >= 1)


def is_whole(x: Any) -> bool:
    """Tell whether something is a whole number, of Python or of numpy."""
    return isinstance(x, Integral) and not isinstance(x, bool)


def optional(allowed: Range) -> Range:
    """Allow None as well.

    Example:
        >>> optional(COUNT).words, optional(COUNT).holds(None), optional(COUNT).holds(0)
        ('a whole number of 1 or more, or null', True, False)
    """
    return Range(f"{allowed.words}, or null", lambda x: x is None or allowed.holds(x))


def check_ranges(options: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Refuse options that mean nothing; those that are not named in ``ranges`` are left alone.

    Raises:
        ValueError: there is one.

    Example:
        >>> check_ranges({"lr": -1.0, "seed": 3}, {"lr": POSITIVE})
        Traceback (most recent call last):
        ValueError: lr must be above 0, got -1.0
    """
    for name, allowed in ranges.items():
        if name in options and not holds(allowed, options[name]):
            raise ValueError(f"{name} must be {allowed.words}, got {options[name]!r}")


def holds(allowed: Range, value: Any) -> bool:
    """Tell whether a value is in a range; what is no number is not."""
    try:
        return bool(allowed.holds(value))
    except (TypeError, ValueError, OverflowError):
        return False
