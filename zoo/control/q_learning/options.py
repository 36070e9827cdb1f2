"""Which options of Q-learning make sense, alone and together."""

from collections.abc import Mapping
from typing import Any

from zoo.constraints import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, Range, check_ranges, optional

RANGES = {
    "gamma": FRACTION,
    "lr": POSITIVE,
    "lr_decay_steps": optional(COUNT),
    "visit_power": NOT_NEGATIVE,
    "replay": NOT_NEGATIVE,
    "warm_up": NOT_NEGATIVE,
    "updates": COUNT,
    "batch_size": COUNT,
    "n_step": COUNT,
    "target_every": NOT_NEGATIVE,
    "target_mix": Range("above 0 and at most 1", lambda x: 0 < x <= 1),
    "max_gradient_norm": optional(POSITIVE),
}
TABLE_RANGES = {**RANGES, "lr": Range("above 0 and at most 1 for a table", lambda x: 0 < x <= 1)}

NEEDS = {  # options that only something makes use of, and how to have that
    "a network": (("lr_decay_steps", "dueling", "hidden", "max_gradient_norm"), "choose model=dqn"),
    "a table": (("visit_power",), "choose model=q_learning"),
    "a replay buffer": (("warm_up", "updates", "n_step"), "set replay to the steps it is to hold"),
    "a target network": (("target_mix", "double"), "set target_every to the gradient steps between two updates"),
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
        >>> check_options({"replay": 0, "n_step": 3}, {"n_step": 1}, table=False)
        Traceback (most recent call last):
        ValueError: n_step=3 needs a replay buffer: set replay to the steps it is to hold, or n_step=1
    """
    check_ranges(options, TABLE_RANGES if table else RANGES)
    there = {
        "a network": not table,
        "a table": table,
        "a replay buffer": options.get("replay"),
        "a target network": options.get("target_every"),
    }
    for what, (names, cure) in NEEDS.items():
        idle = [name for name in names if name in options and options[name] != defaults[name]]
        if idle and not there[what]:
            asked = " and ".join(f"{name}={options[name]}" for name in idle)
            instead = " ".join(f"{name}={defaults[name]}" for name in idle)
            raise ValueError(f"{asked} need{'s' * (len(idle) == 1)} {what}: {cure}, or {instead}")
