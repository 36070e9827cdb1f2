from copy import copy
from functools import partial
from typing import NamedTuple

import torch
from pyro.distributions import Bernoulli, Independent, MaskedDistribution
from pyro.distributions.util import is_identically_zero
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._tensors import at_least_float32
from zoo.gradients.graphs._distributions import tensors_of
from zoo.gradients.graphs._provenance.shadow_memory import is_no_grad_view
from zoo.inference._bernoulli import bernoulli_log_prob
from zoo.inference.elbo.nonreparameterized import NonReparameterized


class Density(NamedTuple):
    """Log-probability of a value, and its parts, ``(*batch)``, in nats."""

    log_prob: Tensor
    score: Tensor | None = None
    """Log-probability whose gradient is the score; None if the whole gradient is pathwise."""
    entropy: Tensor | None = None
    """Part of ``log_prob`` whose gradient has a non-zero expectation; None if there is none."""


visible_tensors = partial(tensors_of, packages=("torch.distributions.", "pyro.distributions.", "zoo."))
"""Function that returns all tensors that a distribution is computed from; None if it may use others."""


def draw_value(distribution: Distribution | _Subsample) -> Tensor:
    """Sample a value, with gradient if possible; Bernoulli vectors are sampled several times faster than by torch."""
    bernoulli = _bernoulli_logits(distribution)
    if bernoulli is None:
        value: Tensor = distribution()  # type: ignore[operator]
        return value
    logits = bernoulli[0].detach()
    probability = logits.to(at_least_float32(logits.dtype, logits.device)).sigmoid()
    return torch.lt(torch.rand_like(probability), probability, out=torch.empty_like(logits))


def log_density(distribution: Distribution, value: Tensor, drawn: bool = False) -> Tensor:
    """Return the log-probability of a value; for Bernoulli vectors several times faster than torch.

    ``drawn``: the distribution itself sampled the value, without gradient, so it need not be validated.
    """
    bernoulli = _bernoulli_logits(distribution)
    if bernoulli is None or value.requires_grad:
        # A copy, because a transform may have cached the value's pre-image without gradient.
        return distribution.log_prob(value.clone() if drawn else value)
    logits, base = bernoulli
    if base._validate_args and not drawn:
        base._validate_sample(value)
    return bernoulli_log_prob(logits, value if value.dtype is logits.dtype else value.to(logits.dtype))


def _bernoulli_logits(distribution: Distribution | _Subsample) -> tuple[Tensor, Bernoulli] | None:
    """Return the logits of a vector of independent Bernoulli variables; None for others, and if given by ``probs``."""
    if type(distribution) is not Independent or distribution.reinterpreted_batch_ndims != 1:
        return None
    base = distribution.base_dist
    logits = vars(base).get("logits") if type(base) is Bernoulli else None
    return (logits, base) if logits is not None and base._param is logits else None


def guide_density(distribution: Distribution, value: Tensor) -> Density:
    """Return the density of a value sampled by a guide: pathwise if possible, otherwise with a score.

    A mask of the distribution hides its part of the ELBO, but not the score: the value was still sampled.
    """
    if distribution.has_rsample:
        log_prob, score, entropy = distribution.score_parts(value)  # type: ignore[attr-defined]
        return Density(log_prob, _none_if_zero(score), _none_if_zero(entropy))
    log_prob = log_density(distribution, value, drawn=True)
    unmasked = _remove_masks(distribution)
    return Density(log_prob, log_prob if unmasked is distribution else log_density(unmasked, value, drawn=True))


def _remove_masks(distribution: Distribution) -> Distribution:
    """Return a distribution without its masks; the same object if it has none."""
    if isinstance(distribution, MaskedDistribution):
        return _remove_masks(distribution.base_dist)
    if not isinstance(distribution, Independent | NonReparameterized):
        return distribution
    base = _remove_masks(distribution.base_dist)
    if base is distribution.base_dist:
        return distribution
    if isinstance(distribution, NonReparameterized):
        return NonReparameterized(base)
    return Independent(base, distribution.reinterpreted_batch_ndims)


def _none_if_zero(part: Tensor | float | int) -> Tensor | None:
    return None if is_identically_zero(part) else torch.as_tensor(part)


def restore_gradients(distribution: Distribution, views: dict[int, Tensor] | None = None) -> Distribution:
    """Return a distribution whose parameters propagate gradients; the same object if they already do.

    A view of a tensor with gradient made under ``torch.no_grad`` by ``expand`` or ``broadcast_tensors``, as
    distributions and plates do, has ``requires_grad=True``, but is a leaf: gradients end at the view.
    """
    views = {} if views is None else views  # the new views, so that equal parameters stay equal
    changed: dict[str, Tensor | Distribution] = {}
    for name, part in vars(distribution).items():
        if isinstance(part, Tensor) and is_no_grad_view(part):
            if id(part) not in views:
                views[id(part)] = part._base.as_strided(part.shape, part.stride(), part.storage_offset())  # type: ignore[union-attr]
            changed[name] = views[id(part)]
        elif isinstance(part, Distribution) and (restored := restore_gradients(part, views)) is not part:
            changed[name] = restored
    if not changed:
        return distribution
    restored = copy(distribution)
    vars(restored).update(changed)
    return restored
