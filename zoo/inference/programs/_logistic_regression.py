from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.inference.programs._factors import MeanFieldGuide, NormalFactor
from zoo.inference.programs._program import Program

ROWS, FEATURES = 200, 10
START_SD = 0.1


def model(x: Float[Tensor, "rows features"], y: Float[Tensor, " rows"]) -> None:
    """Logistic regression: ``β ~ N(0, 1)``, ``y ~ Bernoulli(logits = x β)``."""
    one = y.new_tensor(1.0)
    with pyro.plate("features", x.shape[1]):
        beta = pyro.sample("beta", dist.Normal(0 * one, one))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=beta @ x.mT), obs=y)


def guide(x: Float[Tensor, "rows features"], y: Float[Tensor, " rows"]) -> MeanFieldGuide:
    """Return a normal for each coefficient."""
    return MeanFieldGuide({"beta": NormalFactor(x.new_zeros(x.shape[1]), START_SD)}, {"beta": "features"})


def simulate(rows: int, features: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Simulate coefficients from their prior, standard-normal features, and responses."""
    noise = np.random.default_rng(seed)
    x, beta = noise.standard_normal((rows, features)), noise.standard_normal(features)
    x[:, 0] = 1
    y = noise.random(rows) < 1 / (1 + np.exp(-x @ beta))
    dtype = torch.get_default_dtype()
    return torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype), torch.tensor(beta, dtype=dtype)


def load(root: Path | None = None) -> tuple[Tensor, ...]:
    """Return simulated features and responses; no file is read."""
    return simulate(ROWS, FEATURES, seed=0)[:2]


LOGISTIC_REGRESSION = Program("logistic regression on simulated data", model, guide, load)
