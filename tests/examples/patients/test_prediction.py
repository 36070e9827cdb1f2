import math

import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from examples.patients import FactorFamily, Factors, predictive_log_likelihood
from examples.patients.labs import hold_out_labs, rescale

NORMAL = FactorFamily(series=True, positive=False, factors=2, lab_sd=0.3)


@pytest.fixture
def draws(factors):
    """Three draws that differ."""
    return Factors(*(torch.stack([part, 1.1 * part, 0.7 * part]) for part in factors))


@pytest.fixture
def held_out(labs):
    return hold_out_labs(labs, 0.5, seed=0)[1]


def by_hand(held_out, draws):
    """Log of the mean density of each held-out lab."""
    expected = draws.states @ draws.weights[:, None] + draws.offsets[:, None, None]
    density = stats.norm(expected.numpy(), 0.3).logpdf(held_out.values.numpy())
    return logsumexp(density, axis=0) - math.log(len(density))


def test_lab_is_predicted_by_its_mean_density_over_the_samples(held_out, draws):
    found = predictive_log_likelihood(NORMAL, held_out, draws)
    expected = by_hand(held_out, draws) * held_out.observed.numpy()
    assert found.log_likelihood.tolist() == pytest.approx(expected.sum((1, 2)))
    assert found.labs.tolist() == held_out.observed.sum((1, 2)).tolist()
    assert found.per_lab.item() == pytest.approx(expected.sum() / held_out.observed.sum().item())


def test_unit_of_a_lab_adds_its_logarithm(held_out, draws):
    """With all else in the same unit, labs ten times smaller have a density ten times larger."""
    small = rescale(held_out, torch.full((3,), 10.0))
    tenth = draws._replace(weights=draws.weights / 10, offsets=draws.offsets / 10)
    family = FactorFamily(series=True, positive=False, factors=2, lab_sd=0.03)
    found = predictive_log_likelihood(family, small, tenth).per_lab
    expected = predictive_log_likelihood(NORMAL, held_out, draws).per_lab + math.log(10)
    assert found.item() == pytest.approx(expected.item())


def test_prediction_without_held_out_labs_raises(labs, draws):
    nothing = labs.restrict_observed(torch.zeros_like(labs.observed))
    with pytest.raises(ValueError, match="no lab is held out"):
        predictive_log_likelihood(NORMAL, nothing, draws)
