from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from examples.patients.family import FactorFamily
from examples.patients.guide import Factors
from examples.patients.labs import Labs


def lab_log_density(family: FactorFamily, labs: Labs, factors: Factors) -> Float[Tensor, "*draws patients visits labs"]:
    """Return ``log p(l | w, x, o)`` of each observed lab in nats, and 0 for the others."""
    expected = factors.states @ factors.weights.unsqueeze(-3) + factors.offsets[..., None, None, :]
    return family.lab(expected).log_prob(labs.values).where(labs.observed, 0.0)


def state_log_density(
    family: FactorFamily, labs: Labs, states: Float[Tensor, "*draws patients visits factors"]
) -> Float[Tensor, "*draws patients visits factors"]:
    """Return the log prior of each state conditional on the previous one in nats, and 0 in the padding."""
    density = family.first_state(states).log_prob(states)
    if family.series:
        following = family.next_state(states[..., :-1, :]).log_prob(states[..., 1:, :])
        density = torch.cat([density[..., :1, :], following], -2)
    return density.where(labs.attended[..., None], 0.0)


def prior_log_density(variable: str, family: FactorFamily, labs: Labs, factors: Factors) -> Float[Tensor, "..."]:
    """Return the log prior of each element of ``"weights"``, ``"offsets"`` or ``"states"`` in nats."""
    if variable == "states":
        return state_log_density(family, labs, factors.states)
    prior = family.weight_prior if variable == "weights" else family.offset_prior
    return prior(labs.values).log_prob(getattr(factors, variable))


def sum_log_joint(priors: Mapping[str, Tensor], per_lab: Float[Tensor, "*draws patients visits labs"]) -> Tensor:
    """Return the sum of the log priors of all variables and the log densities of the labs, ``(*draws)``, in nats."""
    variables = priors["states"].sum((-3, -2, -1)) + priors["weights"].sum((-2, -1)) + priors["offsets"].sum(-1)
    return variables + per_lab.sum((-3, -2, -1))


def log_joint(family: FactorFamily, labs: Labs, factors: Factors) -> Float[Tensor, "*draws"]:
    """Return the log joint density of observed and latent variables in nats."""
    priors = {variable: prior_log_density(variable, family, labs, factors) for variable in Factors._fields}
    return sum_log_joint(priors, lab_log_density(family, labs, factors))


def local_terms(
    variable: str, family: FactorFamily, prior: Float[Tensor, "..."], per_lab: Float[Tensor, "*draws p v labs"]
) -> Float[Tensor, "..."]:
    """Return the sum of the terms of the joint density that contain each element of a variable.

    These are its own prior, that of the next state in a series, and the densities of the labs that depend on it.

    Args:
        variable: ``"weights"``, ``"offsets"`` or ``"states"``.
        family: factor model.
        prior: log prior of the variable's elements.
        per_lab: log density of the labs, 0 for unobserved ones.
    """
    if variable == "weights":
        return prior + per_lab.sum((-3, -2)).unsqueeze(-2)
    if variable == "offsets":
        return prior + per_lab.sum((-3, -2))
    following = pad(prior[..., 1:, :], (0, 0, 0, 1)) if family.series else 0.0
    return prior + following + per_lab.sum(-1, keepdim=True)


def local_log_density(variable: str, family: FactorFamily, labs: Labs, factors: Factors) -> Float[Tensor, "..."]:
    """Return the log density of each element of a variable conditional on all others, up to a constant."""
    prior = prior_log_density(variable, family, labs, factors)
    return local_terms(variable, family, prior, lab_log_density(family, labs, factors))
