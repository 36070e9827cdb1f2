from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.gradients.estimators import MAX_UNITS, enumerate_log_probs, iwae_bound
from zoo.inference.sbn.network import BeliefNetwork, ConditionedNetwork


def exact_elbo(network: BeliefNetwork, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """Return ``Σ_h q(h | x) [log p(x, h) - log q(h | x)]`` in nats, differentiable.

    Raises:
        ValueError: there are more than 12 units.

    Example:
        >>> network = BeliefNetwork(pixels=4, layers=(2,))
        >>> (exact_elbo(network, torch.ones(3, 4)) <= log_evidence(network, torch.ones(3, 4))).all()
        tensor(True)
    """
    log_p, log_q = enumerate_log_probs(ConditionedNetwork(network, x))
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
    log_p, log_q = enumerate_log_probs(ConditionedNetwork(network, x))
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
    return enumerate_log_probs(ConditionedNetwork(network, x))[0].logsumexp(0)
