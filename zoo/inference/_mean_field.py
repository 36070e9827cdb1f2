from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from jaxtyping import Float, Float64
from pyro.infer import Predictive
from torch import Tensor
from torch.distributions import Distribution, LogNormal, Normal

NUM_NODES = 40  # quadrature nodes for the logarithm of the noise


def normal_optimum(
    mean: Float[Tensor, " d"], precision: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return means and standard deviations of the factorized normal closest to ``N(mean, precision⁻¹)`` in KL(q ‖ p).

    The means are exact, and the variances are the conditional ones, ``1 / Λ_ii``: Bishop, "Pattern recognition and
    machine learning", 2006, section 10.1.2.
    """
    if torch.linalg.cholesky_ex(precision).info:
        raise ValueError("the precision matrix of a normal must be symmetric and positive definite")
    return mean, precision.diagonal().rsqrt()


def regression_optimum(
    x: Float[Tensor, "rows d"], y: Float[Tensor, " rows"], noise_sd: float, prior_sd: float
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return the factorized normal closest to the posterior of ``β ~ N(0, prior_sd)``, ``y ~ N(x β, noise_sd)``."""
    if min(noise_sd, prior_sd) <= 0:
        raise ValueError(f"standard deviations must be positive, got {noise_sd} and {prior_sd}")
    precision = x.mT @ x / noise_sd**2 + torch.eye(x.shape[1], dtype=x.dtype, device=x.device) / prior_sd**2
    return normal_optimum(torch.linalg.solve(precision, x.mT @ y / noise_sd**2), precision)


def noise_optimum(
    residual: float, count: int, prior: Distribution, start: Float64[Tensor, "2"]
) -> Float64[Tensor, "2"]:
    """Return ``m`` and ``log s`` of ``q(σ) = LogNormal(m, s)`` that maximize the ELBO of the noise of a normal.

    The ELBO is ``-n m - R/2 E[σ⁻²] + E[log p(σ)] + m + log s``, with ``E[σ⁻²] = exp(2 s² - 2 m)`` and quadrature for
    the prior.
    """
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(NUM_NODES))
    weights = weights / weights.sum()
    found = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def negative_elbo() -> Tensor:
        optimizer.zero_grad()
        m, log_s = found
        s = log_s.exp()
        log_prior = weights @ prior.log_prob((m + s * nodes).exp())
        loss = count * m + residual / 2 * (2 * s.square() - 2 * m).exp() - log_prior - m - log_s
        loss.backward()
        return loss

    optimizer.step(negative_elbo)
    return found.detach()


def regression_with_noise_optimum(
    x: Float[Tensor, "rows d"],
    y: Float[Tensor, " rows"],
    prior_sd: float,
    noise_prior: Distribution,
    max_iterations: int = 100,
    tolerance: float = 1e-9,
) -> tuple[Normal, LogNormal]:
    """Return the mean-field optimum for ``β ~ N(0, prior_sd)``, ``σ ~ noise_prior``, ``y ~ N(x β, σ)``.

    Coordinate ascent: normals for ``β`` given ``E[σ⁻²]`` in closed form, then a log-normal for ``σ`` given the
    expected sum of squares. In float64.
    """
    x, y = x.double(), y.double()
    noise = torch.stack([y.std().log(), torch.tensor(-1.0, dtype=torch.float64)])
    for _ in range(max_iterations):
        m, s = noise[0], noise[1].exp()
        mean, sd = regression_optimum(x, y, (m - s.square()).exp().item(), prior_sd)
        residual = (y - x @ mean).square().sum() + sd.square() @ x.square().sum(0)
        before, noise = noise, noise_optimum(residual.item(), len(y), noise_prior, noise)
        if (noise - before).abs().max() < tolerance:
            return Normal(mean, sd), LogNormal(noise[0], noise[1].exp())
    raise ValueError(f"coordinate ascent has not converged after {max_iterations} iterations")


def sample_guide(guide: Callable[..., object], data: Sequence[Any], num_samples: int, seed: int) -> dict[str, Tensor]:
    """Return samples of all sites of a guide, ``(num_samples, *shape)``; the global random state is not used."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), torch.no_grad():
        torch.manual_seed(seed)
        return Predictive(guide, num_samples=num_samples, parallel=True)(*data)
