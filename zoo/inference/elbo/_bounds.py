from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.gradients.estimators import iwae_bound
from zoo.inference.elbo._dependencies import NO_PLATES, Plates
from zoo.inference.elbo._downstream_costs import sum_outside
from zoo.inference.elbo._first_order import first_order
from zoo.inference.elbo._objective import Objective
from zoo.inference.elbo._sites import Run, sites_of


def importance_objective(runs: Sequence[Run], reinforce: nn.Module, at_once: bool) -> Objective:
    """Gradient of the importance-weighted bound ``E_q[log 1/K Σ_k p(x, z_k) / q(z_k)]``; VIMCO where the guide is
    discrete.

    Its pathwise part is ``Σ_k w̃_k ∇ log w_k`` with normalised weights, and each particle's score gets the whole bound
    as its signal. Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016; Mnih & Rezende, "Variational
    inference for Monte Carlo objectives", 2016.

    Where all sites stand in the same plates, each of their elements has a bound of its own.

    Args:
        runs: of each particle, or one that holds them in its first dimension.
        reinforce: has a ``VIMCOBaseline`` as its baseline, and maximises.
        at_once: one run holds all particles.

    Raises:
        ValueError: sites have different scales.
    """
    plates, scale = common_plates(runs), common_scale(runs)
    log_weights = arranged([log_weights_of(run, plates) / scale for run in runs], at_once)
    log_scores = arranged([log_scores_of(run, plates) for run in runs], at_once)
    bound = iwae_bound(log_weights, dim=0)
    output = reinforce(log_scores, bound.detach().expand(log_weights.shape), context=log_weights)
    loss = -(scale * bound).sum() + scale * first_order(output.loss.sum()) + output.baseline_loss
    return Objective((scale * bound).sum().detach(), loss, [output.advantage.flatten()])


def importance_bound(runs: Sequence[Run], at_once: bool) -> Tensor:
    """Importance-weighted bound of each element of the plates that all sites share, in nats."""
    plates, scale = common_plates(runs), common_scale(runs)
    return scale * iwae_bound(arranged([log_weights_of(run, plates) / scale for run in runs], at_once), dim=0)


def arranged(parts: Sequence[Tensor], at_once: bool) -> Tensor:
    """Put the particles into the first dimension."""
    return parts[0] if at_once else torch.stack(list(parts))


def log_weights_of(run: Run, plates: Plates) -> Tensor:
    """Logarithm of ``p(x, z) / q(z)``, ``(*plates)``, scaled."""
    log_p = [sum_outside(site.density.log_prob, plates) for site in run.model.values()]
    log_q = [sum_outside(site.density.log_prob, plates) for site in run.guide.values()]
    return torch.stack(torch.broadcast_tensors(*log_p, *(-x for x in log_q))).sum(0)


def log_scores_of(run: Run, plates: Plates) -> Tensor:
    """Log-probability whose gradient is the score of all sites that have one, ``(*plates)``."""
    scores = [sum_outside(site.density.score, plates) for site in run.guide.values() if site.density.score is not None]
    none = torch.zeros_like(log_weights_of(run, plates))
    return torch.stack(torch.broadcast_tensors(none, *scores)).sum(0)


def common_plates(runs: Sequence[Run]) -> Plates:
    """Plates in which all sites of all runs stand; none where values steer the program, for all elements at once.

    Raises:
        ValueError: there are no sites.
    """
    if not any(run.guide or run.model for run in runs):
        raise ValueError("neither the model nor the guide samples anything, so that there is no bound")
    if any(run.steered_by for run in runs):
        return NO_PLATES
    return frozenset.intersection(*(site.plates for _, site in sites_of(runs)))


def common_scale(runs: Sequence[Run]) -> float:
    """Scale of all sites.

    Raises:
        ValueError: they have not the same, and a weighted mean of weights is no bound.
    """
    scales = {float(x) for _, site in sites_of(runs) for x in torch.as_tensor(site.scale).flatten()}
    if len(scales) > 1:
        raise ValueError(
            f"with bound='iwae' all sites need the same scale, and there are {sorted(scales)}; put all of them into "
            "the plate that is subsampled, or use bound='elbo'"
        )
    return scales.pop()
