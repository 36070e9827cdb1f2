"""A few patients, and values for all that is hidden."""

import numpy as np
import pytest
import torch

from examples.patients import FactorFamily, Factors, simulate
from examples.patients.labs import Labs, LabSplit, split_labs

FAMILIES = {
    (family := FactorFamily(series, positive, factors=2, step_sd=0.7, lab_sd=0.3)).name: family
    for series in (False, True)
    for positive in (False, True)
}


@pytest.fixture(params=FAMILIES)
def family(request, double) -> FactorFamily:
    """Each of the four models, with two factors."""
    return FAMILIES[request.param]


@pytest.fixture
def labs(double) -> Labs:
    """Three patients with 4, 1 and 2 visits and three labs, some missing."""
    noise = np.random.default_rng(5)
    attended = np.arange(4) < np.array([4, 1, 2])[:, None]
    observed = attended[..., None] & (noise.random((3, 4, 3)) < 0.7)
    values = np.where(observed, noise.gamma(2, 1, (3, 4, 3)), 1.0)
    return Labs(torch.tensor(values), torch.tensor(observed), torch.tensor(attended), ("a", "b", "c"))


@pytest.fixture
def factors(double) -> Factors:
    """Values of all that is hidden; some states lie near 0."""
    noise = np.random.default_rng(6)
    states = noise.gamma(2, 1, (3, 4, 2))
    states[0, 1, 0] = 0.01
    return Factors(*(torch.tensor(value) for value in (noise.gamma(1, 1, (2, 3)), noise.gamma(1, 1, 3), states)))


@pytest.fixture
def sites():
    """Values of the sites of a model: ``sites(family, factors)``."""

    def of(family: FactorFamily, factors: Factors):
        states = factors.states.movedim(-2, 0).unsqueeze(-1)
        hidden = {"weights": factors.weights, "offsets": factors.offsets}
        if not family.series:
            return {**hidden, "states": states}
        return {**hidden, **{f"states_{visit}": states_v for visit, states_v in enumerate(states)}}

    return of


@pytest.fixture(scope="session")
def split() -> LabSplit:
    """Twenty simulated patients to learn from, and ten to predict."""
    family = FactorFamily(series=True, positive=True, factors=2)
    return split_labs(simulate(family, 30, 3, seed=4, visits=3.0)[0], test_patients=10, seed=0)


@pytest.fixture(autouse=True)
def _own_parameters(own_parameters):
    """Nothing of a test stays in Pyro's parameter store."""
