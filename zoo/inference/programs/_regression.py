import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.nn import PyroModule
from torch import Tensor
from torch.distributions import Distribution, constraints

from zoo.data._posteriordb import read_data
from zoo.inference._mean_field import regression_with_noise_optimum
from zoo.inference.programs._factors import LogNormalFactor, NormalFactor
from zoo.inference.programs._program import posterior_folder, posteriordb_program

PRIOR_SD = 10.0
KIDIQ_NOISE_SCALE = 2.5
KIDIQ_POSTERIOR = "kidiq-kidscore_momhs"
START_ERRORS = 3.0
START_SD = 0.1


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


class Guide(PyroModule):
    """Normals for the coefficients and a log-normal for ``σ``, standardized by least squares.

    The units of the coefficients are conditional standard errors, which may be a thousand times smaller than the data.
    They start three standard errors above the estimates, and ``σ`` at twice its estimate, so that there is something to
    learn.
    """

    def __init__(self, x: Float[Tensor, "rows coefficients"], y: Float[Tensor, " rows"]):
        super().__init__()
        fit = least_squares(x, y)
        self.beta = NormalFactor(fit.beta + START_ERRORS * fit.error, START_SD, unit=fit.error)
        self.sigma = LogNormalFactor((2 * fit.sigma).log(), START_SD)

    def forward(self, x: Float[Tensor, "rows coefficients"], y: Float[Tensor, " rows"]) -> None:
        with pyro.plate("coefficients", x.shape[1]):
            pyro.sample("beta", self.beta())
        pyro.sample("sigma", self.sigma())


def quantities(sites: Mapping[str, Tensor]) -> Float[Tensor, "draws quantities"]:
    return torch.cat([sites["beta"].flatten(1), sites["sigma"].reshape(-1, 1)], 1)


def optimum(
    x: Float[Tensor, "rows coefficients"], y: Float[Tensor, " rows"], prior_sd: float, noise_prior: Distribution
) -> dict[str, Distribution]:
    """Return the mean-field optimum of coefficients and noise."""
    beta, sigma = regression_with_noise_optimum(x, y, prior_sd, noise_prior)
    return {"beta": beta, "sigma": sigma}


def _load_kidiq(root: Path | None) -> tuple[Tensor, ...]:
    score, high_school = read_data(posterior_folder(root, KIDIQ_POSTERIOR), {"kid_score": 1, "mom_hs": 1})
    return torch.stack([torch.ones_like(high_school), high_school], 1), score


def _half(kind: Callable[..., Distribution], scale: float) -> Distribution:
    return kind(torch.tensor(scale, dtype=torch.float64))


_DATA = {"X": 2, "y": 1}
_OPTIMUM = partial(optimum, prior_sd=PRIOR_SD, noise_prior=_half(dist.HalfNormal, PRIOR_SD))
SBLRI, SBLRC = (
    posteriordb_program(
        f"{name}-blr", _DATA, f"linear regression, {what}; posteriordb", model, Guide, quantities, _OPTIMUM
    )
    for name, what in (("sblri", "columns uncorrelated"), ("sblrc", "columns correlated"))
)
KIDIQ = posteriordb_program(
    KIDIQ_POSTERIOR,
    {},
    "children's scores by their mothers' schooling; Gelman & Hill 2007",
    kidiq_model,
    Guide,
    quantities,
    partial(optimum, prior_sd=math.inf, noise_prior=_half(dist.HalfCauchy, KIDIQ_NOISE_SCALE)),
)._replace(load=_load_kidiq)
