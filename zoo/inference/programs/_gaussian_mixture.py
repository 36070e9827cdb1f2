from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.nn import PyroModule
from torch import Tensor

from zoo.inference.programs._factors import BernoulliFactor, BetaMeanFactor, LogNormalFactor, NormalFactor
from zoo.inference.programs._program import posteriordb_program

POSTERIOR = "low_dim_gauss_mix-low_dim_gauss_mix"
PRIOR_COUNT = 5.0
START_TOTAL = 100.0
START_SD = 0.1


def components(y: Float[Tensor, " points"]) -> tuple[Tensor, Tensor, Tensor]:
    """Sample ``mu ~ N(0, 2)`` and ``sigma ~ HalfNormal(2)`` of two components, and ``theta ~ Beta(5, 5)`` of the first.

    posteriordb orders the means. Here the labels may be swapped; the guide starts with ordered means and stays in the
    mode that the reference describes.
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
    """Sample the same mixture with a binary variable per point, which is 1 for the second component."""
    mu, sigma, theta = components(y)
    with pyro.plate("points", len(y)):
        second = pyro.sample("second", dist.Bernoulli(probs=1 - theta))
        pyro.sample("y", dist.Normal(chosen(mu, second), chosen(sigma, second)), obs=y)


def chosen(pair: Tensor, second: Tensor) -> Tensor:
    """Pick from the last dimension of ``pair``: its second element where ``second`` is 1, else its first."""
    return pair[..., :1].lerp(pair[..., 1:], second)


class Guide(PyroModule):
    """Normals for the means, log-normals for the scales, a beta for the weight of the first component.

    The means start one standard deviation below and above the mean of the data, in units of 0.05.
    """

    def __init__(self, y: Float[Tensor, " points"]):
        super().__init__()
        around = y.mean() + y.std() * y.new_tensor([-1.0, 1.0])
        self.mu = NormalFactor(around, 1.0, unit=0.05)
        self.sigma = LogNormalFactor(y.new_zeros(2), START_SD)
        self.theta = BetaMeanFactor(y.new_tensor(0.5), START_TOTAL)

    def forward(self, y: Float[Tensor, " points"]) -> None:
        with pyro.plate("components", 2):
            pyro.sample("mu", self.mu())
            pyro.sample("sigma", self.sigma())
        pyro.sample("theta", self.theta())


class GuideWithAssignments(Guide):
    """The same guide with a Bernoulli per point, initially with probability 1/2."""

    def __init__(self, y: Float[Tensor, " points"]):
        super().__init__(y)
        self.second = BernoulliFactor(torch.zeros_like(y))

    def forward(self, y: Float[Tensor, " points"]) -> None:
        super().forward(y)
        with pyro.plate("points", len(y)):
            pyro.sample("second", self.second())


def quantities(sites: Mapping[str, Tensor]) -> Float[Tensor, "draws 5"]:
    """Return means, scales and the weight of the first component."""
    return torch.cat([sites["mu"].flatten(1), sites["sigma"].flatten(1), sites["theta"].reshape(-1, 1)], 1)


GAUSSIAN_MIXTURE = posteriordb_program(
    POSTERIOR, {"y": 1}, "mixture of two normals, components summed out; posteriordb", model, Guide, quantities
)
MIXTURE_WITH_ASSIGNMENTS = GAUSSIAN_MIXTURE._replace(
    description="mixture of two normals, a binary variable for each point; posteriordb",
    model=model_with_assignments,
    guide=GuideWithAssignments,
)
