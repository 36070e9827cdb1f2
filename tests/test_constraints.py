import math

import pytest

from zoo._constraints import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, check_constraints, optional


@pytest.mark.parametrize(
    ("allowed", "good", "bad"),
    [
        (FRACTION, [0, 0.5, 1], [-0.1, 1.1, math.nan]),
        (NOT_NEGATIVE, [0, 3.5], [-1, math.inf, math.nan]),
        (POSITIVE, [1e-9, 3], [0, -1, math.inf, math.nan, "a"]),
        (COUNT, [1, 7], [0, -3, 2.0, True, math.inf, math.nan, "a", None]),
        (optional(COUNT), [None, 1], [0]),
    ],
    ids=lambda value: getattr(value, "words", ""),
)
def test_constraint_holds_for_what_it_describes(allowed, good, bad):
    for value in good:
        check_constraints({"number": value}, {"number": allowed})
    for value in bad:
        with pytest.raises(ValueError, match=f"number must be {allowed.description}, got {value!r}"):
            check_constraints({"number": value}, {"number": allowed})


def test_missing_options_are_not_checked():
    check_constraints({"other": -1}, {"number": COUNT})
