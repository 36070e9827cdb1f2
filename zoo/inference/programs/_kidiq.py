import math
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from zoo.data._posteriordb import ReferenceMoments, read_data, read_reference
from zoo.inference.programs._program import Program, posterior_folder
from zoo.inference.programs._regression import Guide, observe, optimum, quantities

NOISE_SCALE = 2.5
POSTERIOR = "kidiq-kidscore_momhs"


def model(x: Float[Tensor, "children 2"], y: Float[Tensor, " children"]) -> None:
    """Children's scores by their mothers' schooling: ``y ~ N(x β, σ)``, ``β`` flat, ``σ ~ HalfCauchy(2.5)``.

    Gelman & Hill, "Data analysis using regression and multilevel/hierarchical models", 2007, chapter 3.
    """
    with pyro.plate("coefficients", x.shape[1]):
        beta = pyro.sample("beta", dist.ImproperUniform(constraints.real, (), ()))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_tensor(NOISE_SCALE)))
    observe(x, y, beta, sigma)


def load(root: Path | None) -> tuple[Tensor, ...]:
    """Read a column of ones beside whether the mother finished high school, and the scores."""
    score, high_school = read_data(posterior_folder(root, POSTERIOR), {"kid_score": 1, "mom_hs": 1})
    return torch.stack([torch.ones_like(high_school), high_school], 1), score


def reference(root: Path | None) -> ReferenceMoments:
    """Read the reference moments."""
    return read_reference(posterior_folder(root, POSTERIOR))


KIDIQ = Program(
    "children's scores by their mothers' schooling; Gelman & Hill 2007",
    model,
    Guide,
    load,
    quantities,
    reference,
    partial(optimum, prior_sd=math.inf, noise_prior=dist.HalfCauchy(torch.tensor(NOISE_SCALE, dtype=torch.float64))),
)
