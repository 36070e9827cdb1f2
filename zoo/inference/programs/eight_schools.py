from collections.abc import Mapping
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.nn import PyroModule
from torch import Tensor

from zoo.data.posteriordb import Reference, read_data, read_reference
from zoo.inference.programs.factors import LogNormalFactor, NormalFactor
from zoo.inference.programs.program import Program, posterior_folder

POSTERIOR = "eight_schools-eight_schools_noncentered"
START_SD = 0.1


def model(y: Float[Tensor, " schools"], sigma: Float[Tensor, " schools"]) -> None:
    """Effects of coaching in eight schools, not centred: Rubin, "Estimation in parallel randomized experiments", 1981.

    ``mu ~ N(0, 5)``, ``tau ~ HalfCauchy(5)``, ``theta = mu + tau · theta_trans``, ``y ~ N(theta, sigma)``.
    """
    five, one = y.new_tensor(5.0), y.new_tensor(1.0)
    mu = pyro.sample("mu", dist.Normal(0 * five, five))
    tau = pyro.sample("tau", dist.HalfCauchy(five))
    with pyro.plate("schools", len(y)):
        theta_trans = pyro.sample("theta_trans", dist.Normal(0 * one, one))
        pyro.sample("y", dist.Normal(mu + tau * theta_trans, sigma), obs=y)


class Guide(PyroModule):
    """Normals for ``mu``, in units of 5, and for each ``theta_trans``; a log-normal for ``tau``."""

    def __init__(self, y: Float[Tensor, " schools"], sigma: Float[Tensor, " schools"]):
        super().__init__()
        self.mu = NormalFactor(y.new_tensor(0.0), START_SD / 5, unit=5.0)
        self.tau = LogNormalFactor(y.new_tensor(0.0), START_SD)
        self.theta_trans = NormalFactor(torch.zeros_like(y), START_SD)

    def forward(self, y: Float[Tensor, " schools"], sigma: Float[Tensor, " schools"]) -> None:
        """Draw the mean, the spread and each school's own part."""
        pyro.sample("mu", self.mu())
        pyro.sample("tau", self.tau())
        with pyro.plate("schools", len(y)):
            pyro.sample("theta_trans", self.theta_trans())


def load(root: Path | None) -> tuple[Tensor, ...]:
    """Effects and their standard errors."""
    return read_data(posterior_folder(root, POSTERIOR), {"y": 1, "sigma": 1})


def quantities(sites: Mapping[str, Tensor]) -> Float[Tensor, "draws quantities"]:
    """``theta``, ``mu`` and ``tau``."""
    mu, tau = sites["mu"].reshape(-1, 1), sites["tau"].reshape(-1, 1)
    return torch.cat([mu + tau * sites["theta_trans"].flatten(1), mu, tau], 1)


def reference(root: Path | None) -> Reference:
    """Moments from long chains."""
    return read_reference(posterior_folder(root, POSTERIOR))


EIGHT_SCHOOLS = Program("effects of coaching in eight schools; Rubin 1981", model, Guide, load, quantities, reference)
