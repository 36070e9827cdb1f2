import math

import pytest

from zoo.control.q_learning._options import CONSTRAINTS, REQUIREMENTS, check_options
from zoo.control.q_learning.module import QLearning

DEFAULTS = {"learning_starts": 0, "gradient_steps": 1, "n_steps": 1, "visit_power": 0.7, "dueling": False, "tau": 1.0}


class TestConstraints:
    @pytest.mark.parametrize(
        ("name", "allowed", "refused"),
        [
            ("gamma", [0, 0.5, 1], [-0.1, 1.1, math.nan]),
            ("lr", [1e-9, 1.0], [0, -1, math.inf, math.nan]),
            ("lr_decay_steps", [None, 1], [0, -5]),
            ("visit_power", [0, 0.7], [-1, math.nan]),
            ("buffer_size", [0, 10], [-1]),
            ("learning_starts", [0, 10], [-1]),
            ("gradient_steps", [1, 10], [0, -1]),
            ("batch_size", [1, 10], [0, -1]),
            ("n_steps", [1, 10], [0, -1]),
            ("target_update_interval", [0, 10], [-1]),
            ("tau", [1e-3, 1], [0, -1, 5, math.nan]),
            ("max_grad_norm", [None, 1e-3, 10], [0, -1, math.nan]),
        ],
    )
    def test_option_outside_its_range_raises(self, name, allowed, refused):
        everything = {"buffer_size": 1, "target_update_interval": 1}
        for value in allowed:
            check_options({**everything, name: value}, {name: value}, table=False)
        for value in refused:
            with pytest.raises(ValueError, match=rf"^{name} must be .*, got {value}$"):
                check_options({**everything, name: value}, {name: value}, table=False)

    def test_step_size_of_a_table_is_at_most_1(self):
        check_options({"lr": 3}, DEFAULTS, table=False)
        with pytest.raises(ValueError, match="lr must be above 0 and at most 1 for a table, got 3"):
            check_options({"lr": 3}, DEFAULTS, table=True)


class TestOptionsWithoutEffect:
    @pytest.mark.parametrize(
        ("options", "table", "message"),
        [
            ({"dueling": True}, True, "^dueling=True needs a network: choose model=dqn, or dueling=False$"),
            ({"visit_power": 0.5}, False, "visit_power=0.5 needs a table: choose model=q_learning"),
            ({"tau": 0.1}, True, "tau=0.1 needs a target network: set target_update_interval"),
            (
                {"learning_starts": 9, "gradient_steps": 2},
                True,
                "learning_starts=9 and gradient_steps=2 need a replay buffer: .* gradient_steps=1$",
            ),
        ],
    )
    def test_option_without_effect_raises_with_a_cure(self, options, table, message):
        with pytest.raises(ValueError, match=message):
            check_options(options, DEFAULTS, table)

    def test_options_are_accepted_with_their_requirement_or_at_their_default(self):
        check_options({"dueling": True}, DEFAULTS, table=False)
        check_options({"dueling": False, "n_steps": 1}, DEFAULTS, table=True)
        check_options({"n_steps": 3, "buffer_size": 100, "tau": 0.1, "target_update_interval": 5}, DEFAULTS, table=True)


def test_every_checked_option_is_an_argument_of_q_learning():
    options = set(QLearning(16, 4).hparams)
    assert options >= CONSTRAINTS.keys() | {name for names, _ in REQUIREMENTS.values() for name in names}
