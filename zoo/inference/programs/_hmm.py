from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.nn import PyroModule
from torch import Tensor

from zoo.inference.programs._factors import BetaMeanFactor, NormalFactor
from zoo.inference.programs._program import posteriordb_program

POSTERIOR = "hmm_example-hmm_example"
PRIOR_MEANS = (3.0, 10.0)
START_TOTAL = 20.0


def model(y: Float[Tensor, " steps"]) -> None:
    """Hidden Markov chain of two states seen through unit normals; ``hmm_example`` of posteriordb.

    ``mu ~ N((3, 10), 1)``, the chance ``first`` to go on in the first state flat for each state that it is in; the
    states are summed out by the forward algorithm, and the first of them is as likely one as the other, up to a factor.
    The means are ordered and positive there; here they are so up to a probability that does not matter.
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


class Guide(PyroModule):
    """Normals for the means, in units of a tenth, from their prior means; betas for the transitions."""

    def __init__(self, y: Float[Tensor, " steps"]):
        super().__init__()
        self.mu = NormalFactor(y.new_tensor(PRIOR_MEANS), 1.0, unit=0.1)
        self.first = BetaMeanFactor(y.new_full((2,), 0.5), START_TOTAL)

    def forward(self, y: Float[Tensor, " steps"]) -> None:
        with pyro.plate("states", 2):
            pyro.sample("mu", self.mu())
            pyro.sample("first", self.first())


def quantities(sites: Mapping[str, Tensor]) -> Float[Tensor, "draws 6"]:
    """Return both rows of the transition matrix, and the means."""
    first = sites["first"].reshape(-1, 2, 1)
    return torch.cat([torch.cat([first, 1 - first], 2).flatten(1), sites["mu"].reshape(-1, 2)], 1)


HMM = posteriordb_program(
    POSTERIOR, {"y": 1}, "hidden Markov chain, states summed out; posteriordb", model, Guide, quantities
)
