"""Estimators of the ELBO's gradient that are compared."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from zoo.gradients.spread import gradients_of
from zoo.inference.diagnostics.score_function_elbo import WholeELBO
from zoo.inference.elbo import BlackBoxELBO

BASIC, RAO_BLACKWELL, CONTROL_VARIATE = "basic", "Rao-Blackwell", "Rao-Blackwell, control variate"
BASELINES = ("moving_average", "leave_one_out")
COMPARING = ("optimal", "leave_one_out")  # need more than one particle

Program = Callable[..., Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of an estimator: model, guide, and theirs."""


def usual_estimators(
    particles: int, vectorize_particles: bool = False, baselines: Sequence[str] = BASELINES
) -> dict[str, BlackBoxELBO]:
    """Make the three estimators of the paper, and Rao-Blackwell with each of several baselines.

    The control variate is ``"optimal"``, whose scaling is estimated by leaving one particle out, so that none draws
    more particles than the others. With 1 particle there is none, and no leave-one-out baseline.

    Example:
        >>> list(usual_estimators(particles=1))
        ['basic', 'Rao-Blackwell', 'moving_average']
    """
    choices = {RAO_BLACKWELL: "none", CONTROL_VARIATE: "optimal", **{name: name for name in baselines}}
    if particles == 1:
        choices = {name: baseline for name, baseline in choices.items() if baseline not in COMPARING}
    return {BASIC: WholeELBO(particles, vectorize_particles, "none")} | {
        name: BlackBoxELBO(particles, vectorize_particles, baseline) for name, baseline in choices.items()
    }


def has_networks(guide: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether sites of a guide name networks for their baselines."""
    with torch.no_grad():
        nodes = poutine.trace(guide).get_trace(*args, **kwargs).nodes.values()
    asked: list[Mapping[str, Any]] = [node["infer"] or {} for node in nodes if node["type"] == "sample"]
    return any("nn_baseline" in (infer.get("baseline") or {}) for infer in asked)


def check_particles(estimators: Mapping[str, ELBO], particles: int) -> None:
    """Raise an error if estimators would not see the same particles."""
    for name, elbo in estimators.items():
        if elbo.num_particles != particles:
            raise ValueError(
                f"the estimator {name!r} has {elbo.num_particles} particles, and the others of this report have "
                f"{particles}; set particles={elbo.num_particles}, or compare it in another report"
            )


def usable(
    estimators: Mapping[str, ELBO], call: Call, parameters: Sequence[Tensor], seed: int
) -> tuple[dict[str, ELBO], dict[str, str]]:
    """Try each estimator once; leave out those that do not go with the program, and say why.

    Raises:
        ValueError: there is none, or the first one fails: the program itself is to blame.
    """
    if not estimators:
        raise ValueError("there is no estimator to compare")
    found: dict[str, ELBO] = {}
    left_out: dict[str, str] = {}
    for name, elbo in estimators.items():
        try:
            gradient(elbo, call, parameters, seed)
            found[name] = elbo
        except ValueError as error:
            if not found:
                raise
            left_out[name] = str(error)
    return found, left_out


def gradient(elbo: ELBO, call: Call, parameters: Sequence[Tensor], seed: int) -> Tensor:
    """Estimate the gradient of the negative ELBO once, ``(1, size)``.

    Raises:
        ValueError: the estimator gives it to the parameters alone.
    """
    if not hasattr(elbo, "differentiable_loss"):
        raise ValueError(f"{type(elbo).__name__} has no differentiable_loss to take a gradient of")
    torch.manual_seed(seed)
    args, kwargs = call
    loss: Tensor = elbo.differentiable_loss(*args, **kwargs)
    return gradients_of(loss.reshape(1), parameters).double()
