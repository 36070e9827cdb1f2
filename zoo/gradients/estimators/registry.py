import difflib
from collections.abc import Collection, Mapping
from typing import Any

from zoo.gradients.baselines import BASELINES
from zoo.gradients.estimators.enumeration import Enumeration
from zoo.gradients.estimators.estimator import GradientEstimator
from zoo.gradients.estimators.nvil import LayerwiseReinforce
from zoo.gradients.estimators.vimco import VIMCO

ESTIMATORS: dict[str, type[GradientEstimator]] = {
    "reinforce": LayerwiseReinforce,
    "vimco": VIMCO,
    "enumeration": Enumeration,
}
"""Estimators by name, as in ``estimator=NAME``."""
_NEEDS = {
    "signals": "learning signals",
    "log_weights": "importance weights",
    "evaluations": "to evaluate the model on samples of its choice",
}


def complete_options(
    options: Mapping[str, Any] | None,
    model: str,
    provides: Collection[str] = tuple(_NEEDS),
    default_baseline: str | None = None,
) -> dict[str, Any]:
    """Return the options ``name``, ``baseline``, ``decay`` and ``scale`` of an estimator with a model's defaults.

    Args:
        options: those that are set; None for none.
        model: name of the model, for messages.
        provides: inputs that the model can pass to an estimator; see ``GradientEstimator.needs``.
        default_baseline: baseline of the model where the estimator takes one.

    Raises:
        ValueError: there is no such estimator, or the model does not offer what it needs.

    Example:
        >>> complete_options({"scale": True}, "ram", default_baseline="learned")
        {'name': 'reinforce', 'baseline': 'learned', 'decay': 0.9, 'scale': True}
        >>> complete_options({"name": "vimco"}, "ram", provides=["signals"])
        Traceback (most recent call last):
        ValueError: model=ram does not support estimator=vimco, which needs importance weights; use estimator=reinforce
    """
    complete = {"name": "reinforce", "baseline": None, "decay": 0.9, "scale": False, **(options or {})}
    name = complete["name"]
    if name not in ESTIMATORS:
        if name in BASELINES:
            raise ValueError(f"{name} is a baseline: set estimator.baseline={name}")
        near = difflib.get_close_matches(str(name), ESTIMATORS, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no estimator {name!r}; there are: {', '.join(ESTIMATORS)}.{hint}")
    estimator = ESTIMATORS[name]
    if estimator.needs not in provides:
        supported = ", ".join(other for other, kind in ESTIMATORS.items() if kind.needs in provides)
        raise ValueError(
            f"model={model} does not support estimator={name}, which needs {_NEEDS[estimator.needs]}; "
            f"use estimator={supported}"
        )
    if complete["baseline"] in (*ESTIMATORS, "nvil"):
        raise ValueError(f"{complete['baseline']} is an estimator: set estimator={complete['baseline']}")
    if complete["baseline"] is None and estimator.takes_baseline:
        complete["baseline"] = default_baseline
    return complete
