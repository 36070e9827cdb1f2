import pytest
import torch

from zoo.inference.sbn import (
    bounds,
    exact_elbo,
    exact_multi_sample_bound,
    log_evidence,
    negative_elbo,
    negative_importance_weighted_bound,
)

COUNT = 4000


@pytest.fixture
def network(make_network):
    return make_network(3, 2)


@pytest.fixture
def crowd(x):
    """The same picture many times, so that the mean over pictures is one over samples."""
    return x.expand(COUNT, -1)


def deviation(bound, exact):
    """How far off, in standard errors; more than 5.5 happens once in a million times or less."""
    return abs(-bound.value - exact.item()) / bound.standard_error


def test_the_elbo_is_the_exact_one_on_average(network, x, crowd):
    assert deviation(negative_elbo(network, crowd, samples=10), exact_elbo(network, x)) < 5.5


def test_more_samples_make_it_no_tighter_but_more_precise(network, x, crowd):
    one, many = (negative_elbo(network, crowd, samples) for samples in (1, 25))
    assert deviation(one, exact_elbo(network, x)) < 5.5
    assert deviation(many, exact_elbo(network, x)) < 5.5
    assert many.standard_error == pytest.approx(one.standard_error / 5, rel=0.2)


def test_the_importance_weighted_bound_is_the_exact_one_on_average(network, x, crowd):
    bound = negative_importance_weighted_bound(network, crowd, samples=2)
    assert deviation(bound, exact_multi_sample_bound(network, x, 2)) < 5.5
    assert deviation(bound, exact_elbo(network, x)) > 20  # the two are never mixed up


def test_with_many_samples_it_nears_the_evidence(network, x):
    bound = negative_importance_weighted_bound(network, x.expand(20, -1), samples=5000)
    assert -bound.value == pytest.approx(log_evidence(network, x).item(), abs=0.02)


def test_the_standard_error_is_that_of_the_mean_over_pictures(network, x):
    pictures = torch.eye(4, dtype=torch.double)
    parts = [-negative_elbo(network, picture[None], samples=5000).value for picture in pictures]
    bound = negative_elbo(network, pictures, samples=5000)
    assert bound.standard_error == pytest.approx((torch.tensor(parts).var().item() / 4) ** 0.5, rel=0.1)


def test_the_same_seed_gives_the_same_and_the_global_randomness_is_left_alone(network, crowd):
    before = torch.get_rng_state()
    one, same, other = (negative_elbo(network, crowd[:50], samples=2, seed=seed) for seed in (0, 0, 1))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_parts_of_any_size_hold_every_picture_once(rows, network, monkeypatch):
    monkeypatch.setattr(bounds, "ROWS", rows)
    pictures = torch.eye(4, dtype=torch.double).repeat(2, 1)
    parts = list(bounds.log_weights(network, pictures, samples=3, seed=0))
    assert sum(part.shape[1] for part in parts) == 8
    assert {len(part) for part in parts} == {3}


@pytest.mark.parametrize(("samples", "pictures"), [(0, 1), (1, 0)])
def test_nothing_to_measure_is_an_error(samples, pictures, network, crowd):
    with pytest.raises(ValueError, match="1 sample and 1 picture or more"):
        negative_elbo(network, crowd[:pictures], samples)
