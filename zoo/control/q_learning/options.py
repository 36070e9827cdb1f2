"""Which options of Q-learning make sense, alone and together."""

from collections.abc import Mapping
from typing import Any

from zoo.constraints import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, Constraint, check_constraints, optional

CONSTRAINTS = {
    "gamma": FRACTION,
    "lr": POSITIVE,
    "lr_decay_steps": optional(COUNT),
    "visit_power": NOT_NEGATIVE,
    "buffer_size": NOT_NEGATIVE,
    "learning_starts": NOT_NEGATIVE,
    "gradient_steps": COUNT,
    "batch_size": COUNT,
    "n_steps": COUNT,
    "target_update_interval": NOT_NEGATIVE,
    "tau": Constraint("above 0 and at most 1", lambda x: 0 < x <= 1),
    "max_grad_norm": optional(POSITIVE),
}
TABLE_CONSTRAINTS = {**CONSTRAINTS, "lr": Constraint("above 0 and at most 1 for a table", lambda x: 0 < x <= 1)}

NEEDS = {  # options that only something makes use of, and how to have that
    "a network": (("lr_decay_steps", "dueling", "hidden", "max_grad_norm"), "choose model=dqn"),
    "a table": (("visit_power",), "choose model=q_learning"),
    "a replay buffer": (("learning_starts", "gradient_steps", "n_steps"), "set buffer_size to the steps it is to hold"),
    "a target network": (("tau", "double"), "set target_update_interval to the gradient steps between two updates"),
}


def check_options(options: Mapping[str, Any], defaults: Mapping[str, Any], table: bool) -> None:
    """Refuse numbers that mean nothing, and options that would have no effect.

    Args:
        options: of ``QLearning``.
        defaults: of the same; an option that has its default asks for nothing.
        table: whether the values are a table's, not a network's.

    Raises:
        ValueError: there is such an option.

    Example:
        >>> check_options({"buffer_size": 0, "n_steps": 3}, {"n_steps": 1}, table=False)
        Traceback (most recent call last):
        ValueError: n_steps=3 needs a replay buffer: set buffer_size to the steps it is to hold, or n_steps=1
    """
    check_constraints(options, TABLE_CONSTRAINTS if table else CONSTRAINTS)
    there = {
        "a network": not table,
        "a table": table,
        "a replay buffer": options.get("buffer_size"),
        "a target network": options.get("target_update_interval"),
    }
    for what, (names, cure) in NEEDS.items():
        idle = [name for name in names if name in options and options[name] != defaults[name]]
        if idle and not there[what]:
            asked = " and ".join(f"{name}={options[name]}" for name in idle)
            instead = " ".join(f"{name}={defaults[name]}" for name in idle)
            raise ValueError(f"{asked} need{'s' * (len(idle) == 1)} {what}: {cure}, or {instead}")
