from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.gradients import Reinforce, ReinforceOutput
from zoo.gradients.optimal_scaling import OptimalScaling, optimal_scaling
from zoo.inference.black_box.densities import guide_density, tensors_shown
from zoo.inference.black_box.recording import Site
from zoo.inference.black_box.sentences import site_of
from zoo.inference.black_box.signals import Score


class Parameters(NamedTuple):
    """Parameters of a site's distribution, of each element of its batch."""

    value: Float[Tensor, "*batch parameters"]
    """With its gradient."""
    score: Float[Tensor, "*batch parameters"]
    """``∇ log q(z)`` with respect to them."""


def optimal_output(reinforce: Reinforce, baseline: OptimalScaling, score: Score, particles: int) -> ReinforceOutput:
    """Estimate a site's part of the gradient with the control variate of black-box variational inference.

    The scaling is found for each parameter ``λ`` of the site's distribution, of each element of its batch. For it the
    log-probability is replaced by ``λ · ∇_λ log q``, which has the same gradient.

    Args:
        reinforce: of the site.
        baseline: what it has for one.
        score: of the site.
        particles: how many there are; those that follow are for the estimate of the scaling alone.
    """
    value, gradient = parameters_of_all(score)
    log_prob, signal, mask = score.log_prob, score.signal, score.present
    if baseline.scaling == "parameter":
        log_prob, signal = value * gradient, like_parameters(signal, value)
        mask = None if mask is None else like_parameters(mask, value)
    if baseline.separate_samples:
        separate = slice(particles, particles + baseline.separate_samples)
        context = optimal_scaling(gradient[separate], signal[separate]).expand(particles, *signal.shape[1:])
    else:
        context = gradient[:particles]
    mask = None if mask is None else mask[:particles]
    output: ReinforceOutput = reinforce(log_prob[:particles], signal[:particles], context, mask)
    return output


def like_parameters(x: Tensor, value: Tensor) -> Tensor:
    """Repeat what stands for each particle and plate for each parameter."""
    particles, *plates = x.shape
    batch = (1,) * (value.ndim - 2 - len(plates))
    return x.reshape(particles, *batch, *plates, 1).expand_as(value)


def parameters_of_all(score: Score) -> Parameters:
    """Arrange a site's parameters in all particles, ``(particles, *batch, parameters)``; 0 where it was not drawn."""
    each = [None if site is None else parameters_of(site) for site in score.sites]
    if len(each) == 1 and each[0] is not None:  # one run holds all particles
        return each[0]
    blank = next(torch.zeros_like(one.value) for one in each if one is not None)
    return Parameters(
        torch.stack([blank if one is None else one.value for one in each]),
        torch.stack([blank if one is None else one.score for one in each]),
    )


def parameters_of(site: Site) -> Parameters:
    """Find the parameters of a site's distribution and the score of each.

    Raises:
        ValueError: they cannot be found, or elements of the batch share them.
    """
    batch = site.distribution.batch_shape
    # A new distribution, as the old one may show a parameter together with what it has computed from it.
    distribution = site.distribution.expand(batch)
    if distribution.has_rsample != site.distribution.has_rsample:
        distribution.has_rsample = site.distribution.has_rsample  # which expanding forgets
    shown = {id(x): x for x in tensors_shown(distribution) or () if x.requires_grad}.values()
    log_prob = guide_density(distribution, site.value).score
    gradients: Sequence[Tensor | None] = ()
    if shown and log_prob is not None:
        gradients = torch.autograd.grad(log_prob.sum(), list(shown), retain_graph=True, allow_unused=True)
    found = [(x, gradient) for x, gradient in zip(shown, gradients, strict=False) if gradient is not None]
    if not found or any(x.shape[: len(batch)] != batch for x, _ in found):
        raise ValueError(
            f"{site_of(site.name, site.distribution)} does not show the parameters of each element of its batch, so "
            "that an optimal scaling cannot be found for them; use another baseline for it"
        )
    return Parameters(*(torch.cat([in_a_row(x, len(batch)) for x in parts], -1) for parts in zip(*found, strict=True)))


def in_a_row(x: Tensor, batch_dims: int) -> Tensor:
    """Put all that an element of a batch has into one dimension."""
    return x.reshape(*x.shape[:batch_dims], -1)
