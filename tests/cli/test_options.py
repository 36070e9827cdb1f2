import math

import pytest

from zoo._constraints import POSITIVE
from zoo.cli._options import Option, matches_type, nearest_key


@pytest.mark.parametrize(
    ("annotation", "value", "fits"),
    [
        (int, 2**63 - 1, True),
        (int, 2**63, False),
        (int, -(2**63) - 1, False),
        (int, True, False),
        (float, 10**30, False),
        (float, math.inf, False),
        (float, math.nan, False),
        (float, False, False),
        (bool, 1, False),
        (list[int], [1, 2**64], False),
        (list[int], 3, False),
        (tuple[int, int] | None, [1, 2], True),
        (tuple[int, int], [1, 2, 3], False),
        (dict[str, object], {"a": 1}, True),
        (dict[str, object], {1: 1}, False),
        (str | None, None, True),
    ],
)
def test_values_match_a_type_without_conversion(annotation, value, fits):
    assert matches_type(annotation, value) == fits


class TestOption:
    def test_value_that_violates_its_constraint_is_refused_with_its_key(self):
        with pytest.raises(ValueError, match=r"model\.lr must be above 0, got 0"):
            Option("model.lr", float, allowed=POSITIVE).check(0)

    def test_empty_text_and_numbers_for_text_are_refused(self):
        with pytest.raises(ValueError, match="env must be text or null, got -1"):
            Option("env", str | None).check(-1)
        with pytest.raises(ValueError, match="env must not be empty"):
            Option("env", str | None).check("")


KEYS = ["seed", "model.lr", "model.total_timesteps", "model.gamma", "trainer.max_epochs", "trainer.gradient_clip"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("total_timesteps", "model.total_timesteps"),
        ("trainer.total_timesteps", "model.total_timesteps"),
        ("model.max_epochs", "trainer.max_epochs"),
        ("sed", "seed"),
        ("model.lrr", "model.lr"),
        ("learning_rate", "model.lr"),
        ("model.discount", "model.gamma"),
        ("max_env_steps", "model.total_timesteps"),
        ("epochs", "trainer.max_epochs"),
        ("trainer.gradient_clip_val", "trainer.gradient_clip"),
        ("xyz", None),
    ],
)
def test_nearest_key_is_found_by_group_synonym_or_spelling(key, meant):
    assert nearest_key(key, KEYS) == meant
