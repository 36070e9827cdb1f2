"""Errors and messages about sites."""

from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients.graphs._distributions import in_support

WRAPPERS = ("Independent", "MaskedDistribution", "ExpandedDistribution", "NonReparameterized")


class NonFiniteELBOError(FloatingPointError):
    """The bound, its loss or a gradient is not finite at a step of the ELBO; ``reason`` is empty if it is unknown."""

    def __init__(self, problem: str, step: int, reason: str, contrast: str = ""):
        super().__init__(f"{problem} at step {step}{contrast}" + (f": {reason}" if reason else ""))
        self.step = step
        self.reason = reason


class HighVarianceWarning(UserWarning):
    """A score is multiplied with the sum of many log-probabilities."""


def describe_site(name: str, distribution: Distribution) -> str:
    """Return the name of a site and the class of its distribution."""
    return f"site {name!r} ({type(innermost(distribution)).__name__})"


def innermost(distribution: Distribution) -> Distribution:
    """Return a distribution without wrappers that expand, mask or reinterpret it."""
    while type(distribution).__name__ in WRAPPERS:
        distribution = distribution.base_dist  # type: ignore[attr-defined]
    return distribution


def diagnose_value(name: str, distribution: Distribution, value: Tensor, observed: bool) -> str | None:
    """Return what is wrong with a value of a site; None if it is in the support."""
    site = describe_site(name, distribution)
    if value.is_floating_point() and bool(value.isnan().any()):
        if observed:
            return f"the data of {site} contain NaN; remove them, or replace them and hide them with obs_mask"
        return f"the guide drew NaN at {site}; check its parameters and the learning rate"
    if _may_be_in_support(distribution, value):
        return None
    if observed:
        return f"the data of {site} lie outside the support of their distribution"
    return (
        f"the guide draws values that lie outside the support of the model's {site}; use a distribution with the same "
        "support in the guide, or transform its values"
    )


def _may_be_in_support(distribution: Distribution, value: Tensor) -> bool:
    try:
        return in_support(distribution, value)
    except (RuntimeError, ValueError):  # the shape is wrong, which is reported elsewhere
        return True


def diagnose_parameters(distribution: Distribution) -> str | None:
    """Return which parameter of a distribution is not finite; None if all are."""
    for name, part in vars(distribution).items():
        if isinstance(part, Distribution) and (found := diagnose_parameters(part)):
            return found
        if isinstance(part, Tensor) and part.is_floating_point() and not bool(part.isfinite().all()):
            return f"its {name.strip('_')} is not finite"
    return None


def shared_control_flow_error(values: str, assert_location: str | None = None) -> str:
    """Return the message for control flow that depends on values of vectorized particles."""
    if assert_location is not None:
        return (
            f"the assert at {assert_location} uses {values}, which differ between vectorized particles; remove it, or "
            "set vectorize_particles=False"
        )
    return (
        f"{values} determine the control flow (if, assert, item(), an index), which vectorized particles share; set "
        "vectorize_particles=False, or use torch.where and poutine.mask (with NonReparameterized for the distribution "
        "of the guide: its pathwise gradient is biased, since the program is discontinuous)"
    )
