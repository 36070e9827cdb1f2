from collections.abc import Mapping
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.data._posteriordb import ReferenceMoments
from zoo.inference.programs._factors import LogNormalFactor, MeanFieldGuide, NormalFactor
from zoo.inference.programs._program import Program

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
STANDARD_ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
START_SD = 0.1


def model(y: Float[Tensor, " schools"], sigma: Float[Tensor, " schools"]) -> None:
    """Effects of coaching in eight schools, non-centered: Rubin, "Estimation in parallel randomized experiments", 1981.

    ``mu ~ N(0, 5)``, ``tau ~ HalfCauchy(5)``, ``theta = mu + tau · theta_trans``, ``y ~ N(theta, sigma)``.
    """
    five, one = y.new_tensor(5.0), y.new_tensor(1.0)
    mu = pyro.sample("mu", dist.Normal(0 * five, five))
    tau = pyro.sample("tau", dist.HalfCauchy(five))
    with pyro.plate("schools", len(y)):
        theta_trans = pyro.sample("theta_trans", dist.Normal(0 * one, one))
        pyro.sample("y", dist.Normal(mu + tau * theta_trans, sigma), obs=y)


def guide(y: Float[Tensor, " schools"], sigma: Float[Tensor, " schools"]) -> MeanFieldGuide:
    """Return normals for ``mu``, in units of 5, and for each ``theta_trans``, and a log-normal for ``tau``."""
    factors = {
        "mu": NormalFactor(y.new_tensor(0.0), START_SD / 5, unit=5.0),
        "tau": LogNormalFactor(y.new_tensor(0.0), START_SD),
        "theta_trans": NormalFactor(torch.zeros_like(y), START_SD),
    }
    return MeanFieldGuide(factors, {"theta_trans": "schools"})


def load(root: Path | None = None) -> tuple[Tensor, ...]:
    """Return effects and their standard errors; no file is read."""
    return torch.tensor(EFFECTS), torch.tensor(STANDARD_ERRORS)


def quantities(sites: Mapping[str, Tensor]) -> Float[Tensor, "draws quantities"]:
    mu, tau = sites["mu"].reshape(-1, 1), sites["tau"].reshape(-1, 1)
    return torch.cat([mu + tau * sites["theta_trans"].flatten(1), mu, tau], 1)


# Mean, its standard error, mean square and its standard error, from the 10,000 reference draws of posteriordb.
MOMENTS = {
    "theta[1]": (6.15050229334425, 0.0557375282295219, 69.36345, 1.1692102),
    "theta[2]": (4.9395811407422, 0.0462293788624847, 45.9787, 0.6346494),
    "theta[3]": (3.90590609001582, 0.0542313705632124, 43.13923, 0.6539418),
    "theta[4]": (4.79601675138494, 0.0474935816762281, 45.76135, 0.6193689),
    "theta[5]": (3.6144363246799, 0.0461450610244603, 34.35767, 0.4550489),
    "theta[6]": (4.0511475789675, 0.0485195392528031, 39.4135, 0.5390213),
    "theta[7]": (6.31716975886893, 0.0498766794075794, 64.93269, 0.9216132),
    "theta[8]": (4.88399694353288, 0.0542511606560972, 52.12845, 0.9024748),
    "mu": (4.41051833695493, 0.0330374705950917, 30.40302, 0.3351356),
    "tau": (3.60205952364059, 0.0318615135640706, 23.20407, 0.4848872),
}


def reference(root: Path | None = None) -> ReferenceMoments:
    """Return the moments of the reference draws of posteriordb; no file is read."""
    return ReferenceMoments(tuple(MOMENTS), *torch.tensor(list(MOMENTS.values()), dtype=torch.float64).unbind(1))


EIGHT_SCHOOLS = Program("effects of coaching in eight schools; Rubin 1981", model, guide, load, quantities, reference)
