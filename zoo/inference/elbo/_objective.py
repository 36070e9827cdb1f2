from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.gradients.graphs._surrogate import sum_all
from zoo.inference.elbo._downstream_costs import scores
from zoo.inference.elbo._estimators import Estimators
from zoo.inference.elbo._first_order import first_order
from zoo.inference.elbo._sites import Run


class Objective(NamedTuple):
    """A bound of the log-evidence, and the loss whose gradient estimates that of the negative bound."""

    bound: Tensor
    """In nats, detached; a scalar."""
    loss: Tensor
    """Only its gradient has a meaning."""
    advantages: list[Tensor]
    """Of the sites with a score, detached and flat: signals less their baselines, in nats."""


def elbo_objective(runs: Sequence[Run], estimators: Estimators, particles: int, at_once: bool) -> Objective:
    """Split the gradient of ``-ELBO = -E_q[log p(x, z) - log q(z)]`` into what flows through values and densities.

    ``Σ ∇ log q - Σ ∇ log p`` of all that has a pathwise gradient, and for each other site ``-(f - b) ∇ log q``, where
    ``f`` are the terms of the ELBO that it influences. The expectation of that site's own ``∇ log q`` is 0.

    Args:
        runs: of each particle, or one that holds them in its first dimension.
        estimators: of the sites with a score.
        particles: how many there are that count; any others are for estimates of a scaling.
        at_once: one run holds all particles.
    """
    first = particles if at_once else None
    log_p, log_q, entropy = sums(runs[:particles], first)
    found = scores(runs, at_once)
    if not any(run.steered_by for run in runs):  # otherwise another run may have other sites
        estimators.check_names(found)
    outputs = [estimators(score, particles) for score in found.values()]
    pairs = zip(outputs, found.values(), strict=True)
    advantages = [present_advantages(output.advantage, score.present) for output, score in pairs]
    score_loss = first_order(total([output.loss for output in outputs]))
    pathwise_loss, baseline_loss = entropy - log_p, total([output.baseline_loss for output in outputs])
    loss = (pathwise_loss + score_loss) / particles + baseline_loss
    return Objective((log_p - log_q).detach() / particles, loss, advantages)


def present_advantages(advantage: Tensor, present: Tensor | None) -> Tensor:
    """Return the advantages of those particles that drew a site."""
    if present is not None:
        advantage = advantage[present[: len(advantage)].reshape(len(advantage), -1)[:, 0]]
    return advantage.flatten()


def sums(runs: Sequence[Run], first: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Add up ``log p``, ``log q`` and what of the latter has a pathwise gradient, over all sites and particles."""
    log_p = [site.density.log_prob for run in runs for site in run.model.values()]
    densities = [site.density for run in runs for site in run.guide.values()]
    log_q = [density.log_prob.detach() for density in densities]
    entropy = [density.entropy for density in densities if density.entropy is not None]
    return total(log_p, first), total(log_q, first), total(entropy, first)


def total(terms: Iterable[Tensor], first: int | None = None) -> Tensor:
    """Add up tensors of any shape to a scalar; of their first dimension only so many elements."""
    parts = [term if first is None else term[:first] for term in terms]
    return sum_all(parts) if parts else torch.zeros(())
