import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.inference.programs._factors import (
    BernoulliFactor,
    BetaMeanFactor,
    Factor,
    LogNormalFactor,
    MeanFieldGuide,
    NormalFactor,
)
from zoo.inference.programs._program import posteriordb_program, stack_sites

POSTERIOR = "low_dim_gauss_mix-low_dim_gauss_mix"
PRIOR_COUNT = 5.0
START_TOTAL = 100.0
START_SD = 0.1
PLATES = {"mu": "components", "sigma": "components", "second": "points"}
QUANTITIES = stack_sites("mu", "sigma", "theta")


def components(y: Float[Tensor, " points"]) -> tuple[Tensor, Tensor, Tensor]:
    """Sample ``mu ~ N(0, 2)`` and ``sigma ~ HalfNormal(2)`` of two components, and ``theta ~ Beta(5, 5)`` of the first.

    posteriordb orders the means. Here they are not ordered, but the guide starts with ordered means and stays in that
    mode, which the reference describes.
    """
    two, count = y.new_tensor(2.0), y.new_tensor(PRIOR_COUNT)
    with pyro.plate("components", 2):
        mu = pyro.sample("mu", dist.Normal(0 * two, two))
        sigma = pyro.sample("sigma", dist.HalfNormal(two))
    return mu, sigma, pyro.sample("theta", dist.Beta(count, count))


def model(y: Float[Tensor, " points"]) -> None:
    """Mixture of two normals, with the components marginalized out; ``low_dim_gauss_mix`` of posteriordb."""
    mu, sigma, theta = components(y)
    with pyro.plate("points", len(y)):
        weights = dist.Categorical(probs=torch.stack([theta, 1 - theta], -1))
        # The component is the last dimension of mu; the points come before it.
        normals = dist.Normal(mu.unsqueeze(-2), sigma.unsqueeze(-2))
        pyro.sample("y", dist.MixtureSameFamily(weights, normals), obs=y)


def model_with_assignments(y: Float[Tensor, " points"]) -> None:
    """Mixture with a binary variable per point, which is 1 for the second component."""
    mu, sigma, theta = components(y)
    with pyro.plate("points", len(y)):
        second = pyro.sample("second", dist.Bernoulli(probs=1 - theta))
        pyro.sample("y", dist.Normal(select_component(mu, second), select_component(sigma, second)), obs=y)


def select_component(pair: Tensor, second: Tensor) -> Tensor:
    """Return the last element of the last dimension of ``pair`` where ``second`` is 1, else the first."""
    return pair[..., :1].lerp(pair[..., 1:], second)


def factors(y: Float[Tensor, " points"]) -> dict[str, Factor]:
    """Return normals for the means, log-normals for the scales, and a beta for the weight of the first component.

    The means start one standard deviation below and above the mean of the data, in units of 0.05.
    """
    around = y.mean() + y.std() * y.new_tensor([-1.0, 1.0])
    return {
        "mu": NormalFactor(around, 1.0, unit=0.05),
        "sigma": LogNormalFactor(y.new_zeros(2), START_SD),
        "theta": BetaMeanFactor(y.new_tensor(0.5), START_TOTAL),
    }


def guide(y: Float[Tensor, " points"]) -> MeanFieldGuide:
    return MeanFieldGuide(factors(y), PLATES)


def guide_with_assignments(y: Float[Tensor, " points"]) -> MeanFieldGuide:
    """Return the same guide with a Bernoulli variable per point, initially with probability 1/2."""
    return MeanFieldGuide({**factors(y), "second": BernoulliFactor(torch.zeros_like(y))}, PLATES)


GAUSSIAN_MIXTURE = posteriordb_program(
    POSTERIOR, {"y": 1}, "mixture of two normals, components marginalized out; posteriordb", model, guide, QUANTITIES
)
MIXTURE_WITH_ASSIGNMENTS = GAUSSIAN_MIXTURE._replace(
    description="mixture of two normals, a binary variable for each point; posteriordb",
    model=model_with_assignments,
    guide=guide_with_assignments,
)
