from typing import NamedTuple

import torch
from pyro.distributions import Bernoulli, Independent, MaskedDistribution
from pyro.distributions.util import is_identically_zero
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._tensors import at_least_single
from zoo.gradients.graphs._distributions import tensors_of
from zoo.inference._bernoulli import bernoulli_log_prob
from zoo.inference.elbo.nonreparameterized import NonReparameterized

PACKAGES = ("torch.distributions.", "pyro.distributions.", "zoo.")  # whose distributions show all they use


class Density(NamedTuple):
    """Log-probability of a value, and its parts, ``(*batch)``, in nats."""

    log_prob: Tensor
    score: Tensor | None = None
    """What the score function is the gradient of; None where all of the gradient flows through the value."""
    entropy: Tensor | None = None
    """Part of ``log_prob`` whose gradient's expectation is not 0; None where none is."""


def tensors_shown(distribution: Distribution) -> list[Tensor] | None:
    """Find all that a distribution is computed from; None if it may use what it does not show."""
    return tensors_of(distribution, PACKAGES)


def draw_value(distribution: Distribution | _Subsample) -> Tensor:
    """Draw a value, with its gradient if it can have one; vectors of bits several times faster than torch does."""
    bits = logits_of_bits(distribution)
    if bits is None:
        value: Tensor = distribution()  # type: ignore[operator]
        return value
    logits = bits[0].detach()
    probability = logits.to(at_least_single(logits.dtype, logits.device)).sigmoid()
    return torch.lt(torch.rand_like(probability), probability, out=torch.empty_like(logits))


def log_density(distribution: Distribution, value: Tensor, drawn: bool = False) -> Tensor:
    """Log-probability of a value; of vectors of bits by a function that is several times faster than torch's own.

    Args:
        distribution: of any kind.
        value: is validated as torch does it.
        drawn: by the distribution itself, without a gradient, so that bits need no validation.
    """
    bits = logits_of_bits(distribution)
    if bits is None or value.requires_grad:
        # A copy, as a transform may remember what it made this value of, without a gradient.
        return distribution.log_prob(value.clone() if drawn else value)
    logits, base = bits
    if base._validate_args and not drawn:
        base._validate_sample(value)
    return bernoulli_log_prob(logits, value.to(logits.dtype))


def logits_of_bits(distribution: Distribution | _Subsample) -> tuple[Tensor, Bernoulli] | None:
    """Find the logits of vectors of independent bits; None of others, and where probabilities were given."""
    if type(distribution) is not Independent or distribution.reinterpreted_batch_ndims != 1:
        return None
    base = distribution.base_dist
    logits = vars(base).get("logits") if type(base) is Bernoulli else None
    return (logits, base) if logits is not None and base._param is logits else None


def guide_density(distribution: Distribution, value: Tensor) -> Density:
    """Log-probability of what a guide drew: pathwise where the distribution can, the score function elsewhere.

    A mask of the distribution's own hides its share of the ELBO, but not the score: the value was drawn all the same.
    """
    if distribution.has_rsample:
        log_prob, score, entropy = distribution.score_parts(value)  # type: ignore[attr-defined]
        return Density(log_prob, none_if_zero(score), none_if_zero(entropy))
    log_prob = log_density(distribution, value, drawn=True)
    whole = without_masks(distribution)
    return Density(log_prob, log_prob if whole is distribution else log_density(whole, value, drawn=True))


def without_masks(distribution: Distribution) -> Distribution:
    """Take a distribution's own masks off; give the distribution itself if it has none."""
    if isinstance(distribution, MaskedDistribution):
        return without_masks(distribution.base_dist)
    if not isinstance(distribution, Independent | NonReparameterized):
        return distribution
    base = without_masks(distribution.base_dist)
    if base is distribution.base_dist:
        return distribution
    if isinstance(distribution, NonReparameterized):
        return NonReparameterized(base)
    return Independent(base, distribution.reinterpreted_batch_ndims)


def none_if_zero(part: Tensor | float | int) -> Tensor | None:
    """Give None for the number 0."""
    return None if is_identically_zero(part) else torch.as_tensor(part)
