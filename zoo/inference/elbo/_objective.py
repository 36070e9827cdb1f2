"""Bounds on the log-evidence, and surrogate losses, whose gradients estimate those of the negative bounds."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.gradients.estimators import iwae_bound
from zoo.gradients.graphs._surrogate import sum_all
from zoo.inference.elbo._downstream_costs import score_function_terms, sum_to_plates
from zoo.inference.elbo._estimators import Estimators
from zoo.inference.elbo._sites import NO_PLATES, Plates, Run, Site, all_sites


class Objective(NamedTuple):
    """A bound on the log-evidence, and a loss whose gradient estimates that of the negative bound."""

    bound: Tensor
    """Scalar in nats, detached."""
    loss: Tensor
    """Only its gradient has a meaning."""
    advantages: Sequence[tuple[Tensor, Tensor | None]]
    """Learning signal minus baseline of each site with a score, detached, in nats, and a mask of the particles that
    sampled the site; None if all did."""


def elbo_objective(runs: Sequence[Run], estimators: Estimators, num_particles: int, vectorized: bool) -> Objective:
    """Return the ELBO and its surrogate loss.

    The gradient of ``-ELBO = -E_q[log p(x, z) - log q(z)]`` is ``Σ ∇ log q - Σ ∇ log p`` for the terms with a pathwise
    gradient, and ``-(f - b) ∇ log q`` for each other site, where ``f`` is the sum of the terms of the ELBO that the
    site influences. The expectation of ``∇ log q`` of such a site is 0. Particles after the first ``num_particles`` are
    used to estimate scaling factors.
    """
    log_p, log_q, entropy = sum_terms(runs[:num_particles], num_particles if vectorized else None)
    scores = score_function_terms(runs, vectorized)
    if not any(run.control_dependencies for run in runs):  # otherwise another run may have other sites
        estimators.check_names(scores)
    outputs = [estimators(score, num_particles) for score in scores.values()]
    score_loss = first_order(total([output.loss for output in outputs]))
    baseline_loss = total([output.baseline_loss for output in outputs])
    loss = (entropy - log_p + score_loss) / num_particles + baseline_loss
    masks = (score.mask for score in scores.values())
    advantages = [(output.advantage, mask) for output, mask in zip(outputs, masks, strict=True)]
    return Objective((log_p.detach() - log_q) / num_particles, loss, advantages)


def flatten_advantages(objective: Objective) -> Tensor:
    """Return the advantages of all sites of the particles that sampled them, flat."""
    return torch.cat([select_particles(x, mask) for x, mask in objective.advantages])


def select_particles(advantage: Tensor, mask: Tensor | None) -> Tensor:
    """Return the advantages of the particles that sampled a site, flat."""
    if mask is not None:
        advantage = advantage[mask[: len(advantage)].reshape(len(advantage), -1)[:, 0]]
    return advantage.flatten()


def sum_terms(runs: Sequence[Run], num_particles: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of ``log p``, of ``log q``, and of the part of ``log q`` with a pathwise gradient."""
    log_p = [site.density.log_prob for run in runs for site in run.model.values()]
    densities = [site.density for run in runs for site in run.guide.values()]
    log_q = [density.log_prob.detach() for density in densities]
    entropy = [density.entropy for density in densities if density.entropy is not None]
    return total(log_p, num_particles), total(log_q, num_particles), total(entropy, num_particles)


def total(terms: Iterable[Tensor], length: int | None = None) -> Tensor:
    """Return the sum of all elements of tensors of any shapes, cut to a length in the first dimension."""
    parts = [term if length is None else term[:length] for term in terms]
    return sum_all(parts) if parts else torch.zeros(())


def importance_objective(runs: Sequence[Run], reinforce: nn.Module, vectorized: bool) -> Objective:
    """Return the importance-weighted bound ``E_q[log 1/K Σ_k p(x, z_k) / q(z_k)]`` and its surrogate loss.

    The pathwise part of the gradient is ``Σ_k w̃_k ∇ log w_k`` with normalized weights; the learning signal of each
    particle's score is the whole bound. Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016; Mnih &
    Rezende, "Variational inference for Monte Carlo objectives", 2016. If all sites are in the same plates, each element
    has its own bound.
    """
    plates, scale, log_weights = _importance_weights(runs, vectorized)
    log_scores = _stack_particles(runs, lambda run: _log_scores(run, plates), vectorized)
    bound = iwae_bound(log_weights, dim=0)
    output = reinforce(log_scores, bound.detach().expand(log_weights.shape), context=log_weights)
    loss = -(scale * bound).sum() + scale * first_order(output.loss.sum()) + output.baseline_loss
    return Objective((scale * bound).sum().detach(), loss, [(output.advantage, None)])


def importance_bound(runs: Sequence[Run], vectorized: bool) -> Tensor:
    """Return the importance-weighted bound of each element of the plates shared by all sites, in nats."""
    _, scale, log_weights = _importance_weights(runs, vectorized)
    return scale * iwae_bound(log_weights, dim=0)


def _importance_weights(runs: Sequence[Run], vectorized: bool) -> tuple[Plates, float, Tensor]:
    """Return the plates and the scale shared by all sites, and the unscaled logarithms of the importance weights."""
    plates, scale = _common_plates(runs), _common_scale(runs)
    return plates, scale, _stack_particles(runs, lambda run: _log_weights(run, plates) / scale, vectorized)


def _stack_particles(runs: Sequence[Run], function: Callable[[Run], Tensor], vectorized: bool) -> Tensor:
    return function(runs[0]) if vectorized else torch.stack([function(run) for run in runs])


def _log_weights(run: Run, plates: Plates) -> Tensor:
    """Return ``log p(x, z) - log q(z)``, ``(*plates)``, scaled."""
    log_p = [sum_to_plates(site.density.log_prob, plates) for site in run.model.values()]
    log_q = [sum_to_plates(site.density.log_prob, plates) for site in run.guide.values()]
    return torch.stack(torch.broadcast_tensors(*log_p, *(-x for x in log_q))).sum(0)


def _log_scores(run: Run, plates: Plates) -> Tensor:
    """Return the log-probability whose gradient is the sum of all scores, ``(*plates)``."""
    parts = [site.density.score for site in run.guide.values()]
    scores = [sum_to_plates(score, plates) for score in parts if score is not None]
    return torch.stack(torch.broadcast_tensors(torch.zeros_like(_log_weights(run, plates)), *scores)).sum(0)


def _common_plates(runs: Sequence[Run]) -> Plates:
    """Return the plates that contain all sites; none if there are control dependencies, which affect all elements."""
    if not any(run.guide or run.model for run in runs):
        raise ValueError("neither the model nor the guide samples anything, so there is no bound")
    if any(run.control_dependencies for run in runs):
        return NO_PLATES
    return frozenset.intersection(*(site.plates for _, site in all_sites(runs)))


def _common_scale(runs: Sequence[Run]) -> float:
    """Return the scale, which all sites must share: differently scaled importance weights do not form a bound."""
    sites: list[Site] = [site for _, site in all_sites(runs)]
    scales = {float(x) for site in sites for x in torch.as_tensor(site.scale).flatten()}
    if len(scales) > 1:
        raise ValueError(
            f"bound='iwae' requires all sites to have the same scale, but there are {sorted(scales)}; move all sites "
            "into the subsampled plate, or use bound='elbo'"
        )
    return scales.pop()


def first_order(loss: Tensor) -> Tensor:
    """Return a copy of a loss whose second derivative raises an error.

    The surrogate loss ``log q(z) · (f - b)`` with detached ``f`` has the correct gradient, but its second derivative
    lacks every term in which ``f`` or the distribution of ``z`` is differentiated.
    """
    if not loss.requires_grad:
        return loss
    copy = loss.clone()
    copy.register_hook(lambda grad: _RaiseOnSecondDerivative.apply(grad, loss) if torch.is_grad_enabled() else None)
    return copy


class _RaiseOnSecondDerivative(torch.autograd.Function):
    """Returns the first argument; raises an error if it is differentiated with respect to the second."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, loss: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        _raise_second_order()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        _raise_second_order()


def _raise_second_order() -> None:
    raise ValueError(
        "the ELBO has no second derivative where sites of the guide are differentiated by the score function: its loss "
        "is a surrogate whose second derivative lacks terms; use distributions with rsample, or "
        "zoo.gradients.trace(program).surrogate(order=2)"
    )
