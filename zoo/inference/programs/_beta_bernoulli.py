from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.data._posteriordb import ReferenceMoments
from zoo.inference.programs._factors import BetaFactor, MeanFieldGuide
from zoo.inference.programs._program import Program, stack_sites

HEADS, FLIPS = 6, 10
PRIOR = 10.0
START = 15.0


def model(flips: Float[Tensor, " flips"]) -> None:
    """Flips of a coin of unknown fairness: ``f ~ Beta(10, 10)``, ``y ~ Bernoulli(f)``; Pyro's tutorial SVI part III."""
    fairness = pyro.sample("fairness", dist.Beta(flips.new_tensor(PRIOR), flips.new_tensor(PRIOR)))
    with pyro.plate("flips", len(flips)):
        pyro.sample("flip", dist.Bernoulli(fairness), obs=flips)


def guide(flips: Float[Tensor, " flips"]) -> MeanFieldGuide:
    """Return ``q(f) = Beta(α, β)``, started at ``α = β = 15``, with the parameters ``log α`` and ``log β``."""
    return MeanFieldGuide({"fairness": BetaFactor(flips.new_tensor(START), flips.new_tensor(START))})


def load(root: Path | None = None) -> tuple[Float[Tensor, " flips"]]:
    """Return six heads followed by four tails; no file is read."""
    return ((torch.arange(FLIPS) < HEADS).to(torch.get_default_dtype()),)


def optimum(flips: Float[Tensor, " flips"]) -> dict[str, dist.Beta]:
    """Return the posterior, which is in the guide's family: ``Beta(16, 14)`` after six heads and four tails."""
    heads = flips.double().sum()
    return {"fairness": dist.Beta(PRIOR + heads, PRIOR + len(flips) - heads)}


def reference(root: Path | None = None) -> ReferenceMoments:
    exact = optimum(*load())["fairness"].expand((1,))
    zero = torch.zeros(1, dtype=torch.float64)
    return ReferenceMoments(("fairness",), exact.mean, zero, exact.variance + exact.mean.square(), zero)


BETA_BERNOULLI = Program(
    "a coin's fairness; Pyro's tutorial SVI part III", model, guide, load, stack_sites("fairness"), reference, optimum
)
