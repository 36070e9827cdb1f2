import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.distributions import Distribution, constraints

from zoo.data._posteriordb import read_data
from zoo.inference.programs._factors import LogNormalFactor, MeanFieldGuide, NormalFactor
from zoo.inference.programs._program import posterior_folder, posteriordb_program, stack_sites

PRIOR_SD = 10.0
KIDIQ_NOISE_SCALE = 2.5
KIDIQ_POSTERIOR = "kidiq-kidscore_momhs"
START_ERRORS = 3.0
START_SD = 0.1
NUM_NODES = 40  # quadrature nodes for the logarithm of the noise
TOLERANCE = 1e-9  # of coordinate ascent
QUANTITIES = stack_sites("beta", "sigma")


class LeastSquares(NamedTuple):
    """Estimated coefficients, their standard errors, and the standard deviation of the residuals."""

    beta: Float[Tensor, " coefficients"]
    error: Float[Tensor, " coefficients"]
    sigma: Float[Tensor, ""]


def least_squares(x: Float[Tensor, "rows coefficients"], y: Float[Tensor, " rows"]) -> LeastSquares:
    """Return the least-squares fit; standard errors are conditional on the other coefficients."""
    beta = torch.linalg.lstsq(x, y[:, None]).solution.squeeze(1)
    sigma = ((y - x @ beta).square().sum() / (len(y) - x.shape[1])).sqrt()
    return LeastSquares(beta, sigma / x.square().sum(0).sqrt(), sigma)


def model(x: Float[Tensor, "rows coefficients"], y: Float[Tensor, " rows"]) -> None:
    """Linear regression: ``β ~ N(0, 10)``, ``σ ~ HalfNormal(10)``, ``y ~ N(x β, σ)``."""
    ten = y.new_tensor(PRIOR_SD)
    with pyro.plate("coefficients", x.shape[1]):
        beta = pyro.sample("beta", dist.Normal(0 * ten, ten))
    sigma = pyro.sample("sigma", dist.HalfNormal(ten))
    observe(x, y, beta, sigma)


def kidiq_model(x: Float[Tensor, "children 2"], y: Float[Tensor, " children"]) -> None:
    """Children's scores by their mothers' schooling: ``y ~ N(x β, σ)``, ``β`` flat, ``σ ~ HalfCauchy(2.5)``.

    Gelman & Hill, "Data analysis using regression and multilevel/hierarchical models", 2007, chapter 3.
    """
    with pyro.plate("coefficients", x.shape[1]):
        beta = pyro.sample("beta", dist.ImproperUniform(constraints.real, (), ()))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_tensor(KIDIQ_NOISE_SCALE)))
    observe(x, y, beta, sigma)


def observe(x: Tensor, y: Tensor, beta: Tensor, sigma: Tensor) -> None:
    """``y ~ N(x β, σ)``."""
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(beta @ x.mT, sigma), obs=y)


def guide(x: Float[Tensor, "rows coefficients"], y: Float[Tensor, " rows"]) -> MeanFieldGuide:
    """Return normals for the coefficients and a log-normal for ``σ``, standardized by least squares.

    The units of the coefficients are conditional standard errors, which may be a thousand times smaller than the data.
    They start three standard errors above the estimates, and ``σ`` at twice its estimate, so that there is something to
    learn.
    """
    fit = least_squares(x, y)
    factors = {
        "beta": NormalFactor(fit.beta + START_ERRORS * fit.error, START_SD, unit=fit.error),
        "sigma": LogNormalFactor((2 * fit.sigma).log(), START_SD),
    }
    return MeanFieldGuide(factors, {"beta": "coefficients"})


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


def coefficients_optimum(
    x: Float[Tensor, "rows d"], y: Float[Tensor, " rows"], noise_sd: float, prior_sd: float
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return the factorized normal closest to the posterior of ``β ~ N(0, prior_sd)``, ``y ~ N(x β, noise_sd)``."""
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


def optimum(
    x: Float[Tensor, "rows d"],
    y: Float[Tensor, " rows"],
    prior_sd: float,
    noise_prior: Distribution,
    max_iterations: int = 100,
) -> dict[str, Distribution]:
    """Return the mean-field optimum for ``β ~ N(0, prior_sd)``, ``σ ~ noise_prior``, ``y ~ N(x β, σ)``.

    Coordinate ascent: normals for ``β`` given ``E[σ⁻²]`` in closed form, then a log-normal for ``σ`` given the
    expected sum of squares. In float64.
    """
    x, y = x.double(), y.double()
    noise = torch.stack([y.std().log(), torch.tensor(-1.0, dtype=torch.float64)])
    for _ in range(max_iterations):
        m, s = noise[0], noise[1].exp()
        mean, sd = coefficients_optimum(x, y, (m - s.square()).exp().item(), prior_sd)
        residual = (y - x @ mean).square().sum() + sd.square() @ x.square().sum(0)
        before, noise = noise, noise_optimum(residual.item(), len(y), noise_prior, noise)
        if (noise - before).abs().max() < TOLERANCE:
            return {"beta": dist.Normal(mean, sd), "sigma": dist.LogNormal(noise[0], noise[1].exp())}
    raise ValueError(f"coordinate ascent has not converged after {max_iterations} iterations")


def _load_kidiq(root: Path | None) -> tuple[Tensor, ...]:
    score, high_school = read_data(posterior_folder(root, KIDIQ_POSTERIOR), {"kid_score": 1, "mom_hs": 1})
    return torch.stack([torch.ones_like(high_school), high_school], 1), score


def _half(kind: Callable[..., Distribution], scale: float) -> Distribution:
    return kind(torch.tensor(scale, dtype=torch.float64))


_DATA = {"X": 2, "y": 1}
_OPTIMUM = partial(optimum, prior_sd=PRIOR_SD, noise_prior=_half(dist.HalfNormal, PRIOR_SD))
SBLRI, SBLRC = (
    posteriordb_program(
        f"{name}-blr", _DATA, f"linear regression, {what}; posteriordb", model, guide, QUANTITIES, _OPTIMUM
    )
    for name, what in (("sblri", "columns uncorrelated"), ("sblrc", "columns correlated"))
)
KIDIQ = posteriordb_program(
    KIDIQ_POSTERIOR,
    {},
    "children's scores by their mothers' schooling; Gelman & Hill 2007",
    kidiq_model,
    guide,
    QUANTITIES,
    partial(optimum, prior_sd=math.inf, noise_prior=_half(dist.HalfCauchy, KIDIQ_NOISE_SCALE)),
)._replace(load=_load_kidiq)
