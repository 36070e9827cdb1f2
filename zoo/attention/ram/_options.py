from collections.abc import Mapping
from typing import Any

from zoo._constraints import COUNT, NOT_NEGATIVE, POSITIVE, Constraint, check_constraints, optional

LOCATION_POLICIES = ("learned", "spiral", "random", "center")
CONSTRAINTS = {
    "num_glimpses": COUNT,
    "patch_size": optional(COUNT),
    "num_scales": optional(COUNT),
    "num_samples": COUNT,
    "location_hidden": Constraint("0 (a linear location network) or a number of units", lambda x: x >= 0),
    "spiral_radius": Constraint("between 0 (all at the center) and 1 (up to location_range)", lambda x: 0 <= x <= 1),
    "policy_weight": NOT_NEGATIVE,
    "location_std": POSITIVE,
    "final_location_std": optional(POSITIVE),
    "lr": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
}


def check_options(options: Mapping[str, Any], estimator: Mapping[str, Any]) -> None:
    """Check the range of the options of ``RecurrentAttention``, and that they fit those of its estimator."""
    check_constraints(options, CONSTRAINTS)
    check_location_policy(options["location_policy"])
    few_samples = options["location_policy"] == "learned" and options["num_samples"] < 2
    if few_samples and "leave_one_out" in estimator["baseline"]:
        raise ValueError(
            f"estimator.baseline={estimator['baseline']} compares trajectories of the same image: num_samples must "
            f"be at least 2, got {options['num_samples']}"
        )
    if options["reinforce_core"] and estimator["scale"]:
        raise ValueError(
            "estimator.scale divides only the policy loss, but with model.reinforce_core the core learns from the "
            "cross-entropy too: the running scale would change their balance in every step. Disable one of them, "
            "and set model.policy_weight"
        )


def check_location_policy(name: str) -> None:
    """Check the name of a location policy."""
    if name not in LOCATION_POLICIES:
        raise ValueError(f"there is no location policy {name!r}; choose one of {', '.join(LOCATION_POLICIES)}")
