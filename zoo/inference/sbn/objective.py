from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients import ReinforceOutput
from zoo.gradients.estimators import iwae_bound
from zoo.inference.sbn.network import Posterior

Terms = Sequence[Float[Tensor, "particles batch"]]


class BoundObjective(NamedTuple):
    """Losses whose gradient estimates that of a negative bound, with the terms they were computed from."""

    pathwise: Float[Tensor, ""]
    """Pathwise term, mean over the batch; trains the belief network."""
    score: Float[Tensor, ""]
    """Score-function surrogate, mean over the batch and summed over the layers; trains the inference network."""
    baseline: Float[Tensor, ""]
    """Mean squared error of the baselines, summed over the layers; trains only the baselines."""
    bound: Float[Tensor, " batch"]
    """In nats, detached."""
    reinforce: list[ReinforceOutput]
    """One output per layer; a single one for the importance-weighted bound."""


def elbo_objective(
    posterior: Posterior, log_joint: Terms, reinforce: Iterable[nn.Module], local: bool = True
) -> BoundObjective:
    """Return the losses of ``-ELBO = -E_q[log p(x, h) - log q(h | x)]`` (NVIL).

    The gradient of the belief network is ``-∇ log p(x, h)``, that of layer ``i`` of the inference network
    ``-(l_i - b_i) ∇ log q(h_i | h_{i-1})``. Mnih & Gregor, "Neural variational inference and learning in belief
    networks", 2014.

    Args:
        posterior: samples of the inference network.
        log_joint: terms of ``log p(x, h)``, from the pixels up.
        reinforce: one ``Reinforce(maximize=True)`` per layer, for signals of shape (particles, batch); the context is
            the input of the layer.
        local: use the ``local_signals`` of each layer instead of the whole ELBO.

    Example:
        >>> from zoo.gradients import Reinforce
        >>> from zoo.inference.sbn import BeliefNetwork, bernoulli_sampler
        >>> network, x = BeliefNetwork(pixels=4, layers=(2,)), torch.ones(3, 4)
        >>> posterior = network.infer(x, bernoulli_sampler(network.noise(5, x)))
        >>> elbo_objective(posterior, network.log_joint(x, posterior.units), [Reinforce(maximize=True)]).bound.shape
        torch.Size([3])
    """
    signals = local_signals(log_joint, posterior.log_q)
    elbo = signals[0]
    outs = [
        estimator(log_q, signal if local else elbo, inputs.expand(*log_q.shape, -1))
        for estimator, log_q, signal, inputs in zip(reinforce, posterior.log_q, signals, posterior.inputs, strict=True)
    ]
    return BoundObjective(
        pathwise=-sum_terms(log_joint).mean(),
        score=torch.stack([out.loss.mean() for out in outs]).sum(),
        baseline=torch.stack([out.baseline_loss for out in outs]).sum(),
        bound=elbo.mean(0),
        reinforce=outs,
    )


def iwae_objective(posterior: Posterior, log_joint: Terms, reinforce: nn.Module) -> BoundObjective:
    """Return the losses of the negative importance-weighted bound ``-E_q[log 1/K Σ_k p(x, h_k) / q(h_k | x)]`` (VIMCO).

    The pathwise term reaches both networks, since the weights depend on ``q``. The learning signal of each sample is
    the whole bound. Mnih & Rezende, "Variational inference for Monte Carlo objectives", 2016.

    Args:
        posterior: samples of the inference network.
        log_joint: terms of ``log p(x, h)``.
        reinforce: a ``Reinforce(maximize=True)``; the context is the log-weight of each sample.

    Example:
        >>> from zoo.gradients import Reinforce
        >>> from zoo.inference.sbn import BeliefNetwork, bernoulli_sampler
        >>> network, x = BeliefNetwork(pixels=4, layers=(2,)), torch.ones(3, 4)
        >>> posterior = network.infer(x, bernoulli_sampler(network.noise(5, x)))
        >>> iwae_objective(posterior, network.log_joint(x, posterior.units), Reinforce(maximize=True)).bound.shape
        torch.Size([3])
    """
    log_q = sum_terms(posterior.log_q)
    log_weights = sum_terms(log_joint) - log_q
    bound = iwae_bound(log_weights, dim=0)
    out = reinforce(log_q, bound.detach(), context=log_weights)
    return BoundObjective(
        pathwise=-bound.mean(),
        score=out.loss.sum(0).mean(),
        baseline=out.baseline_loss,
        bound=bound.detach(),
        reinforce=[out],
    )


def local_signals(log_joint: Terms, log_q: Terms) -> list[Float[Tensor, "particles batch"]]:
    """Return the learning signal of each layer: the terms of the ELBO that depend on its units.

    ``l_i = log p(h_L) + Σ_{j≥i} [log p(h_{j-1} | h_j) - log q(h_j | h_{j-1})]`` with ``h_0 = x``, section 2.4 of Mnih &
    Gregor, 2014. The other terms add only variance; ``l_1`` is the whole ELBO.

    Args:
        log_joint: terms of ``log p(x, h)``, from the pixels up; one more than there are layers.
        log_q: terms of ``log q(h | x)``, lowest layer first.

    Example:
        >>> prior, recognised = torch.full((1, 1), -1.0), torch.full((1, 1), -2.0)
        >>> pixels, middle = torch.full((1, 1), -70.0), torch.full((1, 1), -5.0)
        >>> [signal.item() for signal in local_signals([pixels, middle, prior], [recognised, recognised])]
        [-72.0, -4.0]
    """
    signal, signals = log_joint[-1].detach(), []
    for log_p, log_q_above in zip(reversed(log_joint[:-1]), reversed(log_q), strict=True):
        signal = signal + (log_p - log_q_above).detach()
        signals.append(signal)
    return signals[::-1]


def sum_terms(terms: Terms) -> Float[Tensor, "particles batch"]:
    """Return the sum of the terms."""
    return torch.stack(list(terms)).sum(0)
