"""Many independent copies of a small posterior are one chain's elements; their last states are independent draws."""

from itertools import islice

import pytest
import torch
from scipy import stats

from examples.patients import gibbs
from examples.patients.gibbs import Block, metropolis_within_gibbs

COPIES = 4000
SURE = 1e-6
EVERY = torch.ones(COPIES, dtype=torch.bool)


def last(start, blocks, sweeps=60, warm_up=30, seed=0):
    return next(islice(metropolis_within_gibbs(start, blocks, warm_up, seed), sweeps - 1, None))


def copies(value):
    return torch.full((COPIES,), value, dtype=torch.float64)


def normal(mean, precision):
    return lambda state: -precision * (state["x"] - mean).square() / 2


def gamma(shape, rate):
    return lambda state: (shape - 1) * state["x"].log() - rate * state["x"]


def test_normal_mean_with_a_normal_prior_has_its_exact_posterior():
    """Prior N(0, 2²), observed 1.0 and 3.0 with unit noise: precision 2.25, mean 4 / 2.25."""
    prior, likelihood = normal(0.0, 0.25), normal(2.0, 2.0)
    block = Block("x", EVERY, False, lambda state: prior(state) + likelihood(state))
    draws = last({"x": copies(-1.0)}, [block])["x"]
    assert stats.kstest(draws, stats.norm(4 / 2.25, 2.25**-0.5).cdf).pvalue > SURE
    assert stats.kstest(draws, stats.norm(4 / 2.25, 1.2 * 2.25**-0.5).cdf).pvalue < SURE


def test_poisson_rate_with_a_gamma_prior_has_its_exact_posterior():
    """Prior Gamma(2, 1), counts 3 and 0: Gamma(5, 3). Steps multiply, so that a Jacobian is needed."""
    draws = last({"x": copies(5.0)}, [Block("x", EVERY, True, gamma(5, 3))])["x"]
    assert stats.kstest(draws, stats.gamma(5, scale=1 / 3).cdf).pvalue > SURE
    assert stats.kstest(draws, stats.gamma(4, scale=1 / 3).cdf).pvalue < SURE  # what there is without it


def test_chain_does_not_get_stuck_at_zero_where_a_density_is_infinite():
    """Nearly half of Gamma(0.01, 1) lies below the smallest number of float32."""
    start = {"x": torch.ones(COPIES)}
    state = last(start, [Block("x", EVERY, True, gamma(0.01, 1.0))], sweeps=400, warm_up=100)
    assert (state["x"] > 0).all()
    assert (state["x"] < 1e-30).any()


def test_two_correlated_blocks_have_their_joint_distribution():
    """Precision (2, 1; 1, 1): covariance (1, -1; -1, 2)."""

    def density(state):
        x, y = state["x"], state["y"]
        return -(2 * x**2 + 2 * x * y + y**2) / 2

    blocks = [Block("x", EVERY, False, density), Block("y", EVERY, False, density)]
    state = last({"x": copies(2.0), "y": copies(2.0)}, blocks, sweeps=120, warm_up=40)
    assert stats.kstest(state["x"], stats.norm(0, 1).cdf).pvalue > SURE
    assert stats.kstest(state["y"], stats.norm(0, 2**0.5).cdf).pvalue > SURE
    assert stats.kstest(state["x"] + state["y"], stats.norm(0, 1).cdf).pvalue > SURE


def test_elements_in_no_block_are_unchanged():
    half = torch.arange(COPIES) % 2 == 0
    state = last({"x": copies(1.0)}, [Block("x", half, False, normal(0.0, 1.0))])
    assert (state["x"][~half] == 1).all()
    assert (state["x"][half] != 1).double().mean() > 0.99


def test_step_sizes_adapt_to_the_target_acceptance_rate_during_warm_up_only(monkeypatch):
    scales, rates, step = [], [], gibbs.step

    def noting(state, block, scale, generator):
        value, accepted = step(state, block, scale, generator)
        scales.append(scale)
        rates.append(accepted.double().mean().item())
        return value, accepted

    monkeypatch.setattr(gibbs, "step", noting)
    last({"x": copies(0.0)}, [Block("x", EVERY, False, normal(0.0, 1e4))], sweeps=150, warm_up=100)
    assert all((scales[i] != scales[i + 1]).all() for i in range(99))
    assert all(torch.equal(scales[100], scale) for scale in scales[101:])
    assert sum(rates[100:]) / 50 == pytest.approx(0.44, abs=0.05)


def test_chain_depends_on_its_seed_and_not_on_the_global_random_state():
    before = torch.get_rng_state()
    block = Block("x", EVERY, False, normal(0.0, 1.0))
    one, again, other = (last({"x": copies(0.0)}, [block], seed=seed)["x"] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_invalid_initial_state_raises_immediately():
    with pytest.raises(ValueError, match="starts where x has no finite density"):
        metropolis_within_gibbs({"x": copies(0.0)}, [Block("x", EVERY, True, gamma(5, 3))], warm_up=1, seed=0)
    with pytest.raises(ValueError, match="warm_up must be 0 or more, got -1"):
        metropolis_within_gibbs({"x": copies(1.0)}, [Block("x", EVERY, True, gamma(5, 3))], warm_up=-1, seed=0)
