import pytest
import torch

from zoo.inference.sbn import (
    bounds,
    exact_elbo,
    exact_iwae_bound,
    log_evidence,
    negative_elbo,
    negative_iwae_bound,
)

COUNT = 4000


@pytest.fixture
def network(make_network):
    return make_network(3, 2)


@pytest.fixture
def crowd(x):
    """The same image many times, so that the mean over images is one over samples."""
    return x.expand(COUNT, -1)


def deviation(bound, exact):
    """How far off, in standard errors; more than 5.5 happens once in a million times or less."""
    return abs(-bound.value - exact.item()) / bound.standard_error


def test_elbo_estimate_is_unbiased(network, x, crowd):
    assert deviation(negative_elbo(network, crowd, num_samples=10), exact_elbo(network, x)) < 5.5


def test_more_samples_reduce_variance_of_elbo_without_tightening_it(network, x, crowd):
    one, many = (negative_elbo(network, crowd, samples) for samples in (1, 25))
    assert deviation(one, exact_elbo(network, x)) < 5.5
    assert deviation(many, exact_elbo(network, x)) < 5.5
    assert many.standard_error == pytest.approx(one.standard_error / 5, rel=0.2)


def test_iwae_bound_estimate_is_unbiased(network, x, crowd):
    bound = negative_iwae_bound(network, crowd, num_samples=2)
    assert deviation(bound, exact_iwae_bound(network, x, 2)) < 5.5
    assert deviation(bound, exact_elbo(network, x)) > 20  # the two are never mixed up


def test_iwae_bound_approaches_log_evidence_with_many_samples(network, x):
    bound = negative_iwae_bound(network, x.expand(20, -1), num_samples=5000)
    assert -bound.value == pytest.approx(log_evidence(network, x).item(), abs=0.02)


def test_standard_error_is_over_images(network, x):
    images = torch.eye(4, dtype=torch.double)
    parts = [-negative_elbo(network, image[None], num_samples=5000).value for image in images]
    bound = negative_elbo(network, images, num_samples=5000)
    assert bound.standard_error == pytest.approx((torch.tensor(parts).var().item() / 4) ** 0.5, rel=0.1)


def test_bound_is_reproducible_and_leaves_global_random_state(network, crowd):
    before = torch.get_rng_state()
    one, same, other = (negative_elbo(network, crowd[:50], num_samples=2, seed=seed) for seed in (0, 0, 1))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_every_image_is_evaluated_once_for_any_chunk_size(rows, network, monkeypatch):
    monkeypatch.setattr(bounds, "_MAX_PAIRS", rows)
    images = torch.eye(4, dtype=torch.double).repeat(2, 1)
    infer, chunks = network.infer, []
    monkeypatch.setattr(network, "infer", lambda x, *rest: chunks.append(x) or infer(x, *rest))
    negative_elbo(network, images, num_samples=3)
    assert torch.equal(torch.cat(chunks), images)
    assert len(chunks) == -(-8 // max(1, rows // 3))


@pytest.mark.parametrize(("samples", "images"), [(0, 1), (1, 0)])
def test_bound_without_samples_or_images_raises(samples, images, network, crowd):
    with pytest.raises(ValueError, match="at least 1 sample and 1 image"):
        negative_elbo(network, crowd[:images], samples)
