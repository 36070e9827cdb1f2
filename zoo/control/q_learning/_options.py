from collections.abc import Mapping
from typing import Any

from zoo._constraints import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, Constraint, check_constraints, optional

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

REQUIREMENTS = {  # what options need to have an effect, and how to provide it
    "a network": (("lr_decay_steps", "dueling", "hidden", "max_grad_norm"), "choose model=dqn"),
    "a table": (("visit_power",), "choose model=q_learning"),
    "a replay buffer": (("learning_starts", "gradient_steps", "n_steps"), "set buffer_size to its capacity in steps"),
    "a target network": (
        ("tau", "double"),
        "set target_update_interval to the number of gradient steps between two updates",
    ),
}


def check_options(options: Mapping[str, Any], defaults: Mapping[str, Any], table: bool) -> None:
    """Check the range of options, and that those that differ from their default have an effect."""
    check_constraints(options, TABLE_CONSTRAINTS if table else CONSTRAINTS)
    available = {
        "a network": not table,
        "a table": table,
        "a replay buffer": options.get("buffer_size"),
        "a target network": options.get("target_update_interval"),
    }
    for requirement, (names, cure) in REQUIREMENTS.items():
        unused = [name for name in names if name in options and options[name] != defaults[name]]
        if unused and not available[requirement]:
            settings = " and ".join(f"{name}={options[name]}" for name in unused)
            instead = " ".join(f"{name}={defaults[name]}" for name in unused)
            raise ValueError(f"{settings} need{'s' * (len(unused) == 1)} {requirement}: {cure}, or {instead}")
