import pytest
import torch
from scipy import stats

from examples.patients.nuts import nuts

COPIES = 60
START = {"x": torch.ones(COPIES, dtype=torch.float64)}


def potential(state):
    """Independent normals with mean 1 and variance 1/4."""
    return 2 * (state["x"] - 1).square().sum()


def test_samples_have_the_distribution_of_the_potential():
    chain = nuts(potential, START, warm_up=60, draws=20, seed=0)
    assert chain.draws["x"].shape == (80, COPIES)
    draws = chain.draws["x"][[69, 79]].flatten()
    assert stats.kstest(draws, stats.norm(1, 0.5).cdf).pvalue > 1e-6
    assert stats.kstest(draws, stats.norm(1, 1).cdf).pvalue < 1e-3


def test_every_state_including_warm_up_has_its_time():
    chain = nuts(potential, START, warm_up=5, draws=4, seed=0)
    assert len(chain.seconds) == 9
    assert (chain.seconds.diff() > 0).all()
    assert chain.seconds[0] > 0


def test_run_stops_at_its_time_limit_with_the_states_so_far():
    chain = nuts(potential, START, warm_up=100, draws=100_000, seed=0, seconds=0.2)
    assert 1 <= len(chain.seconds) < 5000
    assert (chain.seconds[:-1] < 0.2).all()
    assert chain.seconds[-1] >= 0.2


def test_run_depends_on_its_seed_and_not_on_the_global_random_state():
    before = torch.get_rng_state()
    one, again, other = (nuts(potential, START, warm_up=3, draws=2, seed=seed).draws["x"] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [{"warm_up": -1}, {"draws": 0}, {"max_tree_depth": 0}])
def test_numbers_out_of_range_raise(bad):
    with pytest.raises(ValueError, match="warm_up must be 0 or more, draws and max_tree_depth at least 1"):
        nuts(potential, START, **{"warm_up": 1, "draws": 1, "seed": 0, **bad})
