from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients import ReinforceOutput
from zoo.gradients.estimators import multi_sample_bound
from zoo.inference.sbn.network import Posterior

Terms = Sequence[Float[Tensor, "particles batch"]]


class BoundObjective(NamedTuple):
    """Losses whose gradients are those of a negative bound, and what they were made of."""

    pathwise: Float[Tensor, ""]
    """What backpropagation alone can do, mean over the batch: trains the belief network."""
    score: Float[Tensor, ""]
    """Surrogate, mean over the batch and summed over the layers: trains the inference network by REINFORCE."""
    baseline: Float[Tensor, ""]
    """Mean squared error of the baselines, summed over the layers: trains them alone."""
    bound: Float[Tensor, " batch"]
    """In nats, detached."""
    reinforce: list[ReinforceOutput]
    """Of each layer; of all layers together for the multi-sample bound."""


def elbo_objective(
    posterior: Posterior, log_joint: Terms, reinforce: Iterable[nn.Module], local: bool = True
) -> BoundObjective:
    """Split the gradient of ``-ELBO = -E_q[log p(x, h) - log q(h | x)]`` over both networks.

    The belief network's is ``-∇ log p(x, h)``; layer ``i`` of the inference network gets
    ``-(l_i - b_i) ∇ log q(h_i | h_{i-1})``. Mnih & Gregor, "Neural variational inference and learning in belief
    networks", 2014.

    Args:
        posterior: samples.
        log_joint: the terms of ``log p(x, h)``, from the pixels up.
        reinforce: a ``Reinforce`` for each layer, that maximises; its signals are laid out (particle, batch), and its
            context is what the layer saw.
        local: give each layer its ``local_signals``, else all layers the whole bound.
    """
    signals = local_signals(log_joint, posterior.log_q)
    whole = signals[0]
    outs = [
        estimator(log_q, signal if local else whole, inputs.expand(*log_q.shape, -1))
        for estimator, log_q, signal, inputs in zip(reinforce, posterior.log_q, signals, posterior.inputs, strict=True)
    ]
    return BoundObjective(
        pathwise=-total(log_joint).mean(),
        score=torch.stack([out.loss.mean() for out in outs]).sum(),
        baseline=torch.stack([out.baseline_loss for out in outs]).sum(),
        bound=whole.mean(0),
        reinforce=outs,
    )


def multi_sample_objective(posterior: Posterior, log_joint: Terms, reinforce: nn.Module) -> BoundObjective:
    """Split the gradient of the negative importance-weighted bound ``-E_q[log 1/K Σ_k p(x, h_k) / q(h_k | x)]``.

    Its pathwise part reaches both networks, as the weights depend on ``q`` too. The score of each sample gets the whole
    bound as signal. Mnih & Rezende, "Variational inference for Monte Carlo objectives", 2016.

    Args:
        posterior: samples.
        log_joint: the terms of ``log p(x, h)``.
        reinforce: a ``Reinforce`` that maximises; its context is the log-weight of each sample.
    """
    log_q = total(posterior.log_q)
    log_weights = total(log_joint) - log_q
    bound = multi_sample_bound(log_weights, dim=0)
    out = reinforce(log_q, bound.detach(), context=log_weights)
    return BoundObjective(
        pathwise=-bound.mean(),
        score=out.loss.sum(0).mean(),
        baseline=out.baseline_loss,
        bound=bound.detach(),
        reinforce=[out],
    )


def local_signals(log_joint: Terms, log_q: Terms) -> list[Float[Tensor, "particles batch"]]:
    """Learning signal of each layer: those terms of the ELBO that its units still influence.

    ``l_i = log p(h_L) + Σ_{j≥i} [log p(h_{j-1} | h_j) - log q(h_j | h_{j-1})]`` with ``h_0 = x``, section 2.4 of Mnih &
    Gregor, 2014. What is left out would add noise and nothing else; ``l_1`` is the whole ELBO.

    Args:
        log_joint: the terms of ``log p(x, h)``, from the pixels up; one more than there are layers.
        log_q: of each layer, the lowest first.

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


def total(terms: Terms) -> Float[Tensor, "particles batch"]:
    """Sum of the terms."""
    return torch.stack(list(terms)).sum(0)
