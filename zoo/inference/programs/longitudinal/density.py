import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from zoo.data.labs import Labs
from zoo.inference.programs.longitudinal.family import FactorFamily
from zoo.inference.programs.longitudinal.guide import Factors


def lab_log_density(family: FactorFamily, labs: Labs, factors: Factors) -> Float[Tensor, "*draws patients visits labs"]:
    """``log p(l | w, x, o)`` of each observed lab, 0 for the others; nats."""
    expected = factors.states @ factors.weights.unsqueeze(-3) + factors.offsets[..., None, None, :]
    return family.lab(expected).log_prob(labs.values).where(labs.observed, 0.0)


def state_log_density(
    family: FactorFamily, labs: Labs, states: Float[Tensor, "*draws patients visits factors"]
) -> Float[Tensor, "*draws patients visits factors"]:
    """Log prior of each state given the one before it, 0 in the padding; nats."""
    density = family.first_state(states).log_prob(states)
    if family.series:
        following = family.next_state(states[..., :-1, :]).log_prob(states[..., 1:, :])
        density = torch.cat([density[..., :1, :], following], -2)
    return density.where(labs.attended[..., None], 0.0)


def log_joint(family: FactorFamily, labs: Labs, factors: Factors) -> Float[Tensor, "*draws"]:
    """Log of the joint density of all that is observed and all that is not, in nats."""
    like = labs.values
    return (
        lab_log_density(family, labs, factors).sum((-3, -2, -1))
        + state_log_density(family, labs, factors.states).sum((-3, -2, -1))
        + family.weight_prior(like).log_prob(factors.weights).sum((-2, -1))
        + family.offset_prior(like).log_prob(factors.offsets).sum(-1)
    )


def local_log_density(variable: str, family: FactorFamily, labs: Labs, factors: Factors) -> Float[Tensor, "..."]:
    """Log density of each element of a variable given all else, up to a constant: the terms of the joint it is in.

    Args:
        variable: ``"weights"``, ``"offsets"`` or ``"states"``, whose shape the result has.
        family: the model.
        labs: what is observed.
        factors: values of all variables.
    """
    per_lab = lab_log_density(family, labs, factors)
    if variable == "weights":
        return family.weight_prior(labs.values).log_prob(factors.weights) + per_lab.sum((-3, -2)).unsqueeze(-2)
    if variable == "offsets":
        return family.offset_prior(labs.values).log_prob(factors.offsets) + per_lab.sum((-3, -2))
    prior = state_log_density(family, labs, factors.states)
    following = pad(prior[..., 1:, :], (0, 0, 0, 1)) if family.series else 0.0
    return prior + following + per_lab.sum(-1, keepdim=True)
