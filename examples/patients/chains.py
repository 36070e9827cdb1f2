from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from examples.patients.chain import State
from examples.patients.density import local_log_density, log_joint
from examples.patients.family import FactorFamily
from examples.patients.gibbs import Block
from examples.patients.guide import Factors, Guide, factors_of
from examples.patients.labs import Labs
from zoo.inference._mean_field import sample_guide


def initial_state(family: FactorFamily, labs: Labs, seed: int) -> Factors:
    """Sample the initial state from the initial guide, so that all methods start alike.

    Example:
        >>> labs = Labs(torch.ones(2, 3, 1), torch.ones(2, 3, 1, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
        >>> initial_state(FactorFamily(series=True, positive=True), labs, seed=0).states.shape
        torch.Size([2, 3, 5])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guide = Guide(family, labs)
    return Factors(*(part.squeeze(0) for part in factors_of(sample_guide(guide, (labs,), 1, seed))))


def gibbs_blocks(family: FactorFamily, labs: Labs) -> list[Block]:
    """Return the blocks of one sweep: states of one factor (every other visit in a series), its weights, and offsets.

    Given everything else, states of different patients are independent, as are states of non-adjacent visits, and
    weights and offsets of different labs.

    Example:
        >>> labs = Labs(torch.ones(2, 3, 1), torch.ones(2, 3, 1, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
        >>> [block.variable for block in gibbs_blocks(FactorFamily(series=True, positive=True, factors=1), labs)]
        ['states', 'states', 'weights', 'offsets']
    """
    everywhere = torch.ones_like(labs.observed[0, 0])
    factors = torch.eye(family.factors, dtype=torch.bool, device=everywhere.device)

    def density(variable: str, state: State) -> Tensor:
        return local_log_density(variable, family, labs, Factors(**state))

    def block(variable: str, chosen: Bool[Tensor, "*shape"], positive: bool) -> Block:
        return Block(variable, chosen, positive, partial(density, variable))

    return [
        *(
            block("states", visits[..., None] & row, True)
            for visits in independent_visits(family, labs)
            for row in factors
        ),
        *(block("weights", row[:, None] & everywhere, family.positive) for row in factors),
        block("offsets", everywhere, family.positive),
    ]


def independent_visits(family: FactorFamily, labs: Labs) -> list[Bool[Tensor, "patients visits"]]:
    """Split the attended visits into sets with conditionally independent states."""
    if not family.series:
        return [labs.attended]
    odd = torch.arange(labs.attended.shape[1], device=labs.attended.device) % 2 == 1
    return [labs.attended & ~odd, labs.attended & odd]


def potential(family: FactorFamily, labs: Labs) -> Callable[[State], Tensor]:
    """Return minus the log joint density of unconstrained variables, without the states in the padding."""

    def negative_log_density(state: State) -> Tensor:
        jacobian = sum(state[name].sum() for name in log_transformed(family))
        return -(log_joint(family, labs, constrained(family, labs, state)) + jacobian)

    return negative_log_density


def unconstrained(family: FactorFamily, labs: Labs, factors: Factors) -> dict[str, Tensor]:
    """Return unconstrained variables, with the states at attended visits only, ``(attended, factors)``."""
    state = factors._replace(states=factors.states[labs.attended])._asdict()
    return {name: value.log() if name in log_transformed(family) else value for name, value in state.items()}


def constrained(family: FactorFamily, labs: Labs, state: State) -> Factors:
    """Invert ``unconstrained``, for one or many samples; states in the padding are 1."""
    found = Factors(
        **{name: value.exp() if name in log_transformed(family) else value for name, value in state.items()}
    )
    states = found.states.new_ones(*found.states.shape[:-2], *labs.attended.shape, family.factors)
    states[..., labs.attended, :] = found.states
    return found._replace(states=states)


def log_transformed(family: FactorFamily) -> tuple[str, ...]:
    """Return the names of the positive variables."""
    return ("weights", "offsets", "states") if family.positive else ("states",)
