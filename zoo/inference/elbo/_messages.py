"""What is wrong with a site, in sentences."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients.graphs._distributions import in_support

WRAPPERS = ("Independent", "MaskedDistribution", "ExpandedDistribution", "NonReparameterized")


def site_of(name: str, distribution: Distribution) -> str:
    """Name a site and the kind of its distribution."""
    return f"site {name!r} ({type(innermost(distribution)).__name__})"


def innermost(distribution: Distribution) -> Distribution:
    """Find what was repeated, masked or declared one event."""
    while type(distribution).__name__ in WRAPPERS:
        distribution = distribution.base_dist  # type: ignore[attr-defined]
    return distribution


def what_is_wrong(name: str, distribution: Distribution, value: Tensor, observed: bool) -> str | None:
    """Say what is wrong with a value; None if nothing is."""
    what = site_of(name, distribution)
    if value.is_floating_point() and bool(value.isnan().any()):
        if observed:
            return f"the data of {what} contain NaN; leave them out, or fill them and hide them with obs_mask"
        return f"the guide drew NaN at {what}; look at its parameters, and at the learning rate"
    if fits(distribution, value):
        return None
    if observed:
        return f"the data of {what} lie outside the support of their distribution"
    return (
        f"the guide draws values that lie outside the support of the model's {what}; give the guide a distribution "
        "with the same support, or transform its values"
    )


def no_log_probability(name: str, distribution: Distribution, error: Exception, drawn: bool) -> str:
    """Say that a value has none, and why.

    Args:
        name: of the site.
        distribution: of it.
        error: what came of it.
        drawn: by the guide, for the model.
    """
    cure = "; guide and model need the same plates, as large, and the same to_event" if drawn else ""
    return f"{site_of(name, distribution)} has no log-probability: {error}{cure}"


def fits(distribution: Distribution, value: Tensor) -> bool:
    """Tell whether a value lies in the support of a distribution; of a shape that does not fit that is not said."""
    try:
        return in_support(distribution, value)
    except (RuntimeError, ValueError):
        return True


def wrong_parameters(distribution: Distribution) -> str | None:
    """Say which parameter of a distribution is not finite; None if all are."""
    for name, part in vars(distribution).items():
        if isinstance(part, Distribution) and (found := wrong_parameters(part)):
            return found
        if isinstance(part, Tensor) and part.is_floating_point() and not bool(torch.isfinite(part).all()):
            return f"its {name.strip('_')} is not finite"
    return None


def steered_together(what: str, asserted_at: str | None = None) -> str:
    """Say that vectorised particles cannot go different ways.

    Args:
        what: steers the program.
        asserted_at: place of the assert statement that looks at it, if nothing else does.
    """
    if asserted_at is not None:
        return (
            f"the assert at {asserted_at} looks at {what}, and vectorised particles could pass it one by one only; "
            "leave it out, or set vectorize_particles=False"
        )
    return (
        f"{what} steer the program (if, assert, item(), an index), and vectorised particles cannot go different ways; "
        "set vectorize_particles=False, or write it with torch.where and poutine.mask (and NonReparameterized for a "
        "distribution of the guide whose values choose: no pathwise gradient sees a step)"
    )
