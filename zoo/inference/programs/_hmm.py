from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.inference.programs._factors import BetaMeanFactor, MeanFieldGuide, NormalFactor
from zoo.inference.programs._program import posteriordb_program

POSTERIOR = "hmm_example-hmm_example"
PRIOR_MEANS = (3.0, 10.0)
START_TOTAL = 20.0


def model(y: Float[Tensor, " steps"]) -> None:
    """Hidden Markov model of two states with normal observations; ``hmm_example`` of posteriordb.

    ``mu ~ N((3, 10), 1)``, and ``first ~ Uniform(0, 1)``, the probability of a transition from each state to the first.
    The forward algorithm marginalizes the states; the two initial states are equally likely, up to a constant factor.
    posteriordb constrains the means to be ordered and positive; here they violate this with negligible probability.
    """
    one = y.new_tensor(1.0)
    with pyro.plate("states", 2):
        mu = pyro.sample("mu", dist.Normal(y.new_tensor(PRIOR_MEANS), one))
        first = pyro.sample("first", dist.Beta(one, one))
    pyro.factor("chain", log_evidence(y, mu, torch.stack([first, 1 - first], -1)))


def log_evidence(
    y: Float[Tensor, " steps"], mu: Float[Tensor, "*particles 2"], transition: Float[Tensor, "*particles 2 2"]
) -> Float[Tensor, "*particles 1"]:
    """Return the log-evidence by the forward algorithm, with weight 1 for each initial state."""
    emission = dist.Normal(mu.unsqueeze(-2), y.new_tensor(1.0)).log_prob(y.unsqueeze(-1))
    forward, *others = emission.unbind(-2)
    log_transition = transition.log()
    for emission_t in others:
        forward = (forward.unsqueeze(-1) + log_transition).logsumexp(-2) + emission_t
    return forward.logsumexp(-1, keepdim=True)


def guide(y: Float[Tensor, " steps"]) -> MeanFieldGuide:
    """Return normals for the means, in units of a tenth, from their prior means, and betas for the transitions."""
    factors = {
        "mu": NormalFactor(y.new_tensor(PRIOR_MEANS), 1.0, unit=0.1),
        "first": BetaMeanFactor(y.new_full((2,), 0.5), START_TOTAL),
    }
    return MeanFieldGuide(factors, dict.fromkeys(factors, "states"))


def quantities(sites: Mapping[str, Tensor]) -> Float[Tensor, "draws 6"]:
    """Return both rows of the transition matrix, and the means."""
    first = sites["first"].reshape(-1, 2, 1)
    return torch.cat([torch.cat([first, 1 - first], 2).flatten(1), sites["mu"].reshape(-1, 2)], 1)


HMM = posteriordb_program(
    POSTERIOR, {"y": 1}, "hidden Markov model, states marginalized out; posteriordb", model, guide, quantities
)
