from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.gradients.estimators import iwae_bound
from zoo.inference.sbn.network import BeliefNetwork

MAX_UNITS = 12


def enumerate_states(layers: Sequence[int], like: Tensor) -> list[Float[Tensor, "states 1 _"]]:
    """Return all states of a network's stochastic units for each layer, with the states in the particle dimension.

    Args:
        layers: number of units per layer.
        like: tensor with the dtype and device of the result.

    Raises:
        ValueError: there are more than 12 units.

    Example:
        >>> [layer.squeeze(1).tolist() for layer in enumerate_states([1, 1], torch.zeros(()))]
        [[[0.0], [0.0], [1.0], [1.0]], [[0.0], [1.0], [0.0], [1.0]]]
    """
    bits = sum(layers)
    if bits > MAX_UNITS:
        raise ValueError(f"{bits} stochastic units have too many states to enumerate; the maximum is {MAX_UNITS} units")
    states = torch.arange(2**bits, device=like.device)[:, None] >> torch.arange(bits - 1, -1, -1, device=like.device)
    return list((states & 1).to(like.dtype).unsqueeze(1).split(list(layers), dim=-1))


def _enumerated_log_probs(
    network: BeliefNetwork, x: Float[Tensor, "batch pixels"]
) -> tuple[Float[Tensor, "states batch"], Float[Tensor, "states batch"]]:
    """Return ``log p(x, h)`` and ``log q(h | x)`` of every state ``h``, in nats."""
    states = [layer.expand(-1, len(x), -1) for layer in enumerate_states(network.layers, x)]
    posterior = network.infer(x, lambda layer, logits: states[layer])
    return torch.stack(network.log_joint(x, states)).sum(0), torch.stack(posterior.log_q).sum(0)


def exact_elbo(network: BeliefNetwork, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """Return ``Σ_h q(h | x) [log p(x, h) - log q(h | x)]`` in nats, differentiable.

    Raises:
        ValueError: there are more than 12 units.

    Example:
        >>> network = BeliefNetwork(pixels=4, layers=(2,))
        >>> (exact_elbo(network, torch.ones(3, 4)) <= log_evidence(network, torch.ones(3, 4))).all()
        tensor(True)
    """
    log_p, log_q = _enumerated_log_probs(network, x)
    return (log_q.exp() * (log_p - log_q)).sum(0)


def exact_iwae_bound(
    network: BeliefNetwork, x: Float[Tensor, "batch pixels"], num_particles: int
) -> Float[Tensor, " batch"]:
    """Return ``E_q[log 1/K Σ_k p(x, h_k) / q(h_k | x)]`` over all states of ``K`` particles, in nats, differentiable.

    Raises:
        ValueError: the particles have more than 12 units in total.

    Example:
        >>> exact_iwae_bound(BeliefNetwork(pixels=4, layers=(2,)), torch.ones(3, 4), num_particles=2).shape
        torch.Size([3])
    """
    if num_particles * sum(network.layers) > MAX_UNITS:
        raise ValueError(
            f"{num_particles} particles have too many states to enumerate; the maximum is {MAX_UNITS} units in total"
        )
    log_p, log_q = _enumerated_log_probs(network, x)
    joint = torch.tensor(list(product(range(len(log_q)), repeat=num_particles)), device=x.device).T
    return (log_q[joint].sum(0).exp() * iwae_bound((log_p - log_q)[joint], dim=0)).sum(0)


def log_evidence(network: BeliefNetwork, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """Return ``log p(x) = log Σ_h p(x, h)`` in nats, differentiable.

    Raises:
        ValueError: there are more than 12 units.

    Example:
        >>> log_evidence(BeliefNetwork(pixels=4, layers=(2,)), torch.ones(3, 4)).shape
        torch.Size([3])
    """
    return _enumerated_log_probs(network, x)[0].logsumexp(0)
