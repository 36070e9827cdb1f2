from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.gradients.estimators import multi_sample_bound
from zoo.inference.sbn.network import BeliefNetwork, threshold
from zoo.inference.sbn.objective import total

ROWS = 500  # samples of pictures at a time: few enough for a processor's cache


class Bound(NamedTuple):
    """A negative bound of the log-likelihood, in nats: the smaller, the better."""

    value: float
    """Mean over the pictures."""
    standard_error: float
    """Of that mean, as the pictures vary; sampling the units adds little to it, and is contained in it."""


def negative_elbo(network: BeliefNetwork, x: Float[Tensor, "images pixels"], samples: int = 10, seed: int = 0) -> Bound:
    """Measure the negative ELBO: ``-1/S Σ_s log p(x, h_s) - log q(h_s | x)``, ``h_s ~ q``, averaged over pictures.

    More samples make it more precise, not tighter. The figure in the tables of Mnih & Gregor, 2014, with ``S = 10``.

    Args:
        network: what to measure; it is left as it was.
        x: pixels, 0 or 1, of pictures it was not trained on, on the network's device.
        samples: ``S``, for each picture.
        seed: of the samples; the global random state is neither used nor changed.
    """
    return summary(torch.cat([weights.mean(0) for weights in log_weights(network, x, samples, seed)]))


def negative_importance_weighted_bound(
    network: BeliefNetwork, x: Float[Tensor, "images pixels"], samples: int = 100, seed: int = 0
) -> Bound:
    """Measure the negative importance-weighted bound: ``-log 1/S Σ_s p(x, h_s) / q(h_s | x)``, averaged over pictures.

    The more samples, the tighter: figures with different ``S`` are not comparable, nor is any with the ELBO. Burda,
    Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016.

    Args:
        network: what to measure; it is left as it was.
        x: pixels, 0 or 1, of pictures it was not trained on, on the network's device.
        samples: ``S``, for each picture.
        seed: of the samples; the global random state is neither used nor changed.
    """
    parts = log_weights(network, x, samples, seed)
    return summary(torch.cat([multi_sample_bound(weights, dim=0) for weights in parts]))


@torch.no_grad()
def log_weights(
    network: BeliefNetwork, x: Float[Tensor, "images pixels"], samples: int, seed: int
) -> Iterator[Float[Tensor, "samples part"]]:
    """Draw ``log p(x, h) - log q(h | x)``, a part of the pictures at a time.

    Raises:
        ValueError: there is no sample or no picture.
    """
    if samples < 1 or len(x) == 0:
        raise ValueError(f"a bound needs 1 sample and 1 picture or more, got {samples} and {len(x)}")
    generator = torch.Generator(x.device).manual_seed(seed)
    for part in x.split(max(1, ROWS // samples)):
        posterior = network.infer(part, threshold(network.noise(samples, part, generator)))
        yield total(network.log_joint(part, posterior.units)) - total(posterior.log_q)


def summary(bounds: Float[Tensor, " images"]) -> Bound:
    """Average the bounds of single pictures."""
    bounds = bounds.double()
    error = bounds.std(correction=min(1, len(bounds) - 1)) / len(bounds) ** 0.5
    return Bound(-bounds.mean().item(), error.item())
