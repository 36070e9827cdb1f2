from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.gradients.estimators import multi_sample_bound
from zoo.inference.sbn.network import BeliefNetwork

MOST_BITS = 12


def outcomes(layers: Sequence[int], like: Tensor) -> list[Float[Tensor, "outcomes 1 _"]]:
    """All states of a network's stochastic units, layer by layer, laid out as particles.

    Args:
        layers: units of each layer.
        like: gives type and device.

    Raises:
        ValueError: there are more units than 12.

    Example:
        >>> [layer.squeeze(1).tolist() for layer in outcomes([1, 1], torch.zeros(()))]
        [[[0.0], [0.0], [1.0], [1.0]], [[0.0], [1.0], [0.0], [1.0]]]
    """
    bits = sum(layers)
    if bits > MOST_BITS:
        raise ValueError(f"{bits} stochastic units have too many states to go through: at most {MOST_BITS} units can")
    states = torch.arange(2**bits, device=like.device)[:, None] >> torch.arange(bits - 1, -1, -1, device=like.device)
    return list((states & 1).to(like.dtype).unsqueeze(1).split(list(layers), dim=-1))


def log_probabilities(
    network: BeliefNetwork, x: Float[Tensor, "batch pixels"]
) -> tuple[Float[Tensor, "outcomes batch"], Float[Tensor, "outcomes batch"]]:
    """``log p(x, h)`` and ``log q(h | x)`` of every state ``h`` of the stochastic units, in nats.

    Raises:
        ValueError: there are too many units.
    """
    states = [layer.expand(-1, len(x), -1) for layer in outcomes(network.layers, x)]
    posterior = network.infer(x, lambda layer, logits: states[layer])
    return torch.stack(network.log_joint(x, states)).sum(0), torch.stack(posterior.log_q).sum(0)


def exact_elbo(network: BeliefNetwork, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """``Σ_h q(h | x) [log p(x, h) - log q(h | x)]``, in nats, differentiable.

    Raises:
        ValueError: there are too many units.
    """
    log_p, log_q = log_probabilities(network, x)
    return (log_q.exp() * (log_p - log_q)).sum(0)


def exact_multi_sample_bound(
    network: BeliefNetwork, x: Float[Tensor, "batch pixels"], particles: int
) -> Float[Tensor, " batch"]:
    """``E_q[log 1/K Σ_k p(x, h_k) / q(h_k | x)]`` over all states of ``K`` particles, in nats, differentiable.

    Raises:
        ValueError: there are too many units.
    """
    if particles * sum(network.layers) > MOST_BITS:
        raise ValueError(f"{particles} particles have too many states to go through: at most {MOST_BITS} units can")
    log_p, log_q = log_probabilities(network, x)
    joint = torch.tensor(list(product(range(len(log_q)), repeat=particles)), device=x.device).T
    return (log_q[joint].sum(0).exp() * multi_sample_bound((log_p - log_q)[joint], dim=0)).sum(0)


def log_evidence(network: BeliefNetwork, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """``log p(x) = log Σ_h p(x, h)``, in nats.

    Raises:
        ValueError: there are too many units.
    """
    return log_probabilities(network, x)[0].logsumexp(0)
