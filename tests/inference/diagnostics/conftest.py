"""Programs whose evidence, posterior and gradients are known exactly."""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def isolated(isolated_pyro) -> None: ...


class Normals(NamedTuple):
    """``z ~ N(0, 1)`` and ``x_i ~ N(z, 1)``; a guide ``N(mean, sd)``. All is known exactly."""

    x: Tensor
    mean: float
    sd: float

    def model(self) -> None:
        z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("data", len(self.x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=self.x)

    def guide(self) -> None:
        pyro.sample("z", dist.Normal(torch.tensor(self.mean), self.sd))

    @property
    def posterior(self) -> dist.Normal:
        precision = 1.0 + len(self.x)
        return dist.Normal(self.x.sum() / precision, torch.tensor(precision).rsqrt())

    @property
    def log_evidence(self) -> float:
        covariance = torch.eye(len(self.x)) + 1
        return dist.MultivariateNormal(torch.zeros_like(self.x), covariance).log_prob(self.x).item()

    @property
    def elbo(self) -> float:
        q = dist.Normal(torch.tensor(self.mean), self.sd)
        return self.log_evidence - torch.distributions.kl_divergence(q, self.posterior).item()

    def with_posterior(self) -> "Normals":
        """The same with a guide that is right."""
        return self._replace(mean=self.posterior.loc.item(), sd=self.posterior.scale.item())


@pytest.fixture
def normals() -> Normals:
    """A program with a guide that is somewhat wrong."""
    return Normals(torch.tensor([0.3, 1.2, -0.5, 2.0]), mean=0.2, sd=0.6)
