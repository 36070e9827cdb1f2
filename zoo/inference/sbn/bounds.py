from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.gradients.estimators import MAX_UNITS, bernoulli_sampler, enumerate_log_probs, iwae_bound, sum_terms
from zoo.inference.sbn.network import BeliefNetwork, ConditionedNetwork

_MAX_PAIRS = 500  # of a sample and an image per chunk, which fit into the CPU cache


class Bound(NamedTuple):
    """Estimate of a negative lower bound of the log-likelihood, averaged over images, in nats; lower is better.

    Example:
        >>> Bound(value=111.9, standard_error=0.3).value
        111.9
    """

    value: float
    standard_error: float
    """Standard error of the mean over the images; it includes the noise of sampling the units."""


def negative_elbo(
    network: BeliefNetwork, x: Float[Tensor, "images pixels"], num_samples: int = 10, seed: int = 0
) -> Bound:
    """Estimate the negative ELBO, ``-1/S Σ_s [log p(x, h_s) - log q(h_s | x)]`` with ``h_s ~ q``.

    More samples reduce its variance; they do not tighten it. Mnih & Gregor, 2014, use ``S = 10``.

    Args:
        network: the network.
        x: binary images.
        num_samples: ``S``, samples per image.
        seed: seed of the samples; torch's random state is not used.

    Raises:
        ValueError: there is no sample or no image.

    Example:
        >>> network = BeliefNetwork(pixels=4, layers=(2,))
        >>> negative_elbo(network, torch.ones(3, 4), num_samples=2).value > 0
        True
    """
    return _summarize(torch.cat([weights.mean(0) for weights in _log_weights(network, x, num_samples, seed)]))


def negative_iwae_bound(
    network: BeliefNetwork, x: Float[Tensor, "images pixels"], num_samples: int = 100, seed: int = 0
) -> Bound:
    """Estimate the negative importance-weighted bound, ``-log 1/S Σ_s p(x, h_s) / q(h_s | x)`` with ``h_s ~ q``.

    It tightens with ``S``, so values with different ``S`` are not comparable. Burda, Grosse & Salakhutdinov,
    "Importance weighted autoencoders", 2016. Arguments and errors are those of ``negative_elbo``.

    Example:
        >>> network = BeliefNetwork(pixels=4, layers=(2,))
        >>> negative_iwae_bound(network, torch.ones(3, 4), num_samples=2).value > 0
        True
    """
    chunks = _log_weights(network, x, num_samples, seed)
    return _summarize(torch.cat([iwae_bound(weights, dim=0) for weights in chunks]))


def exact_elbo(network: BeliefNetwork, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """Return ``Σ_h q(h | x) [log p(x, h) - log q(h | x)]`` in nats, differentiable; for up to 12 units.

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
    """Return ``E_q[log 1/K Σ_k p(x, h_k) / q(h_k | x)]`` for ``K`` particles, in nats, differentiable.

    All states are enumerated, for up to 12 units of all particles together.

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
    """Return ``log p(x) = log Σ_h p(x, h)`` in nats, differentiable; for up to 12 units.

    Example:
        >>> log_evidence(BeliefNetwork(pixels=4, layers=(2,)), torch.ones(3, 4)).shape
        torch.Size([3])
    """
    return enumerate_log_probs(ConditionedNetwork(network, x))[0].logsumexp(0)


@torch.no_grad()
def _log_weights(
    network: BeliefNetwork, x: Float[Tensor, "images pixels"], num_samples: int, seed: int
) -> Iterator[Float[Tensor, "samples chunk"]]:
    """Yield ``log p(x, h) - log q(h | x)`` for one chunk of the images at a time."""
    if num_samples < 1 or len(x) == 0:
        raise ValueError(f"a bound needs at least 1 sample and 1 image, got {num_samples} and {len(x)}")
    generator = torch.Generator(x.device).manual_seed(seed)
    for chunk in x.split(max(1, _MAX_PAIRS // num_samples)):
        posterior = network.infer(chunk, bernoulli_sampler(network.noise(num_samples, chunk, generator)))
        yield sum_terms(network.log_joint(chunk, posterior.units)) - sum_terms(posterior.log_q)


def _summarize(bounds: Float[Tensor, " images"]) -> Bound:
    bounds = bounds.double()
    error = bounds.std(correction=min(1, len(bounds) - 1)) / len(bounds) ** 0.5
    return Bound(-bounds.mean().item(), error.item())
