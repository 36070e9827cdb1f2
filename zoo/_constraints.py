"""Constraints on the values of a model's options."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NamedTuple


class Constraint(NamedTuple):
    """Condition on a value: its description for messages, and its predicate."""

    description: str
    predicate: Callable[[Any], bool]


FRACTION = Constraint("between 0 and 1", lambda x: 0 <= x <= 1)
NOT_NEGATIVE = Constraint("0 or more", lambda x: 0 <= x < math.inf)
POSITIVE = Constraint("above 0", lambda x: 0 < x < math.inf)
COUNT = Constraint("a whole number of 1 or more", lambda x: is_integer(x) and x >= 1)


def is_integer(x: Any) -> bool:
    """Whether a value is an integer of Python or numpy; booleans are not."""
    return isinstance(x, Integral) and not isinstance(x, bool)


def optional(constraint: Constraint) -> Constraint:
    """Return a constraint that allows None as well.

    Example:
        >>> optional(COUNT).description, optional(COUNT).predicate(None), optional(COUNT).predicate(0)
        ('a whole number of 1 or more, or null', True, False)
    """
    return Constraint(f"{constraint.description}, or null", lambda x: x is None or constraint.predicate(x))


def check_constraints(options: Mapping[str, Any], constraints: Mapping[str, Constraint]) -> None:
    """Check the options that have a constraint.

    Raises:
        ValueError: an option violates its constraint.

    Example:
        >>> check_constraints({"lr": -1.0, "seed": 3}, {"lr": POSITIVE})
        Traceback (most recent call last):
        ValueError: lr must be above 0, got -1.0
    """
    for name, constraint in constraints.items():
        if name in options and not is_satisfied(constraint, options[name]):
            raise ValueError(f"{name} must be {constraint.description}, got {options[name]!r}")


def is_satisfied(constraint: Constraint, value: Any) -> bool:
    """Whether a value satisfies a constraint; a value of a type that it cannot be applied to does not."""
    try:
        return bool(constraint.predicate(value))
    except (TypeError, ValueError, OverflowError):
        return False
