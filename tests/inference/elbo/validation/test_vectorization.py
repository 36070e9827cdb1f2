"""Vectorized particles are independent, or an error is raised."""

import random

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions.transforms import AffineTransform

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._tracing import ModelGuideCall
from zoo.inference.elbo._validation import validator, vectorization
from zoo.inference.elbo._validation.vectorization import check_particles_independent, unambiguous_num_particles

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


def guide(*args):
    with pyro.plate("data", 3):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(3))))


def model_of(likelihood):
    def model(*args):
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
        likelihood(z, *args)

    return model


def observe(name, mean, data):
    pyro.sample(name, dist.Normal(mean, 1.0), obs=torch.as_tensor(data))


def summed(z):
    observe("x", z.sum(), torch.tensor(1.0))


def kept(z):
    observe("x", z.sum(-1, keepdim=True), torch.ones(1))


def counted_from_the_left(z):
    observe("x", z[0], torch.tensor(1.0))


@pytest.mark.parametrize("particles", [2, 8])
@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_dependent_particles_raise(particles, bound):
    """In each step: a program that failed is not verified."""
    elbo = BlackBoxELBO(particles, vectorize_particles=True, bound=bound)
    sentence = r"to be independent across particles, but log p of site 'x' is .* with one.*sum\(-1, keepdim=True\)"
    for _ in range(2):
        with pytest.raises(ValueError, match=sentence):
            elbo.loss_and_grads(model_of(summed), guide)


def test_dependence_that_appears_during_training_raises():
    """Initially the sum has weight zero, so the dependence is invisible."""

    def model(weight):
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
        observe("x", weight * z.sum(), torch.tensor(1.0))

    elbo = BlackBoxELBO(4, vectorize_particles=True)
    for _ in range(9):
        elbo.loss_and_grads(model, guide, 0.0)
    with pytest.raises(ValueError, match="requires model and guide to be independent across particles"):  # noqa: PT012, the step is not told
        for _ in range(8):
            elbo.loss_and_grads(model, guide, 0.5)


def test_dependent_particles_pass_without_the_check(monkeypatch):
    monkeypatch.setattr(vectorization, "TOLERANCE", torch.inf)
    assert BlackBoxELBO(2, vectorize_particles=True).loss_and_grads(model_of(summed), guide) > 0


def test_dimensions_counted_from_the_left_raise():
    with pytest.raises(ValueError, match="requires model and guide to be independent across particles"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(counted_from_the_left), guide)


def test_independent_particles_raise_nothing():
    assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(kept), guide) > 0


def test_distribution_that_cannot_be_expanded_raises():
    def flow():
        base = dist.Normal(torch.tensor(0.0), 1.0).has_rsample_(False)
        pyro.sample("z", dist.TransformedDistribution(base, [AffineTransform(0.0, 2.0)]))

    with pytest.raises(ValueError, match=r"^has_rsample_\(False\) cannot be stored .*use NonReparameterized"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(flow, flow)


def test_plate_in_the_dimension_of_the_particles_raises():
    elbo = BlackBoxELBO(3, vectorize_particles=True, max_plate_nesting=0)
    with pytest.raises(ValueError, match=r"have 1 dimensions, and max_plate_nesting=0 .* no dimension.*set it to 1"):
        elbo.loss_and_grads(model_of(kept), guide)


def test_later_batch_in_the_dimension_of_the_particles_raises():
    """The batch size equals the number of particles, and the batch was absent when the nesting was determined."""

    def model(data):
        observe("x", pyro.sample("z", dist.Bernoulli(0.5)), data)

    def one_bit(data):
        pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))

    elbo = BlackBoxELBO(4, vectorize_particles=True)
    elbo.loss_and_grads(model, one_bit, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"have 1 dimensions, and max_plate_nesting=0"):
        elbo.loss_and_grads(model, one_bit, torch.ones(4))


def test_different_program_with_equal_sites_is_checked():
    elbo = BlackBoxELBO(4, vectorize_particles=True)
    right, wrong = model_of(kept), model_of(lambda z: observe("x", z.sum().expand(1), torch.ones(1)))
    for _ in range(5):
        elbo.loss_and_grads(right, guide)
    with pytest.raises(ValueError, match="requires model and guide to be independent across particles"):
        elbo.loss_and_grads(wrong, guide)


def test_program_created_in_each_step_is_checked_at_powers_of_two(monkeypatch):
    tried = []
    monkeypatch.setattr(validator, "check_particles_independent", lambda *_: tried.append(0))
    elbo = BlackBoxELBO(4, vectorize_particles=True)
    for _ in range(100):
        elbo.loss_and_grads(model_of(kept), guide)
    assert len(tried) == 7


def test_every_different_program_is_checked(monkeypatch):
    tried = []
    monkeypatch.setattr(validator, "check_particles_independent", lambda *_: tried.append(0))
    elbo = BlackBoxELBO(4, vectorize_particles=True)
    for number in range(100):
        elbo.loss_and_grads(model_of(lambda z, number=number: kept(z)), guide)
    assert len(tried) == 100


def test_large_terms_do_not_hide_a_mismatch():
    def summed_beside_much(z):
        summed(z)
        pyro.factor("much", torch.tensor(1e6))

    with pytest.raises(ValueError, match="log p of site 'x'"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(summed_beside_much), guide)


def test_program_written_for_one_number_of_particles_is_supported():
    def model():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
        observe("x", (z.reshape(4, 3).sum(-1, keepdim=True) if z.ndim > 1 else z.sum(-1, keepdim=True)), torch.ones(1))

    assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model, guide) > 0


def test_error_of_a_single_run_is_unchanged():
    def broken(z):
        raise IndexError("broken by itself")

    with pytest.raises(IndexError, match="broken by itself"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(broken), guide)


def noise():
    return torch.randn(1)


def coin():
    return torch.tensor([float(random.random() < 0.5)])


@pytest.mark.parametrize("thrown", [noise, coin])
def test_random_program_is_not_reported_as_dependent(thrown):
    def noisy(z):
        observe("x", z.sum(-1, keepdim=True), 9 * thrown())

    random.seed(0)
    for _ in range(20):
        assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(noisy), guide) > 0


def test_small_difference_gives_a_warning():
    """Such as a normalization over all particles."""

    def nearly(z):
        observe("x", z.sum(-1, keepdim=True) + 1e-3 * z.sum(), torch.ones(1))

    with pytest.warns(
        UserWarning,
        match=r"differ slightly .*: the particles are not independent, .* or the rounding",
    ):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(nearly), guide)


def test_rounded_point_mass_is_supported():
    """It is a function of another site, and its density is sensitive to rounding."""

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def rounding():
        latent = pyro.sample("latent", dist.Normal(torch.tensor(1.0), 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(latent * (1 + 1e-12 * latent.numel())))

    assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model, rounding) != 0


def test_check_preserves_random_state():
    def coins(z):
        kept(z)
        random.random()

    before, python = torch.get_rng_state(), random.getstate()
    check_particles_independent(1, ModelGuideCall(model_of(coins), guide), {}, 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python


class Normalized(nn.Module):
    """A module that counts its calls in a buffer, like normalization layers."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def model(self):
        model_of(kept)()
        self.norm(torch.randn(4, 3))

    def forward(self):
        guide()
        self.norm(torch.randn(4, 3))


def test_batch_normalization_gives_a_warning():
    norm = nn.BatchNorm1d(1)

    def normalized():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            observe(
                "x", norm(z.reshape(-1, 1) + 0.1 * torch.arange(3.0).repeat(z.numel() // 3)[:, None]).view_as(z), 1.0
            )

    with pytest.warns(UserWarning, match="because of batch normalization in train mode"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(normalized, guide)


def test_check_preserves_buffers():
    module = Normalized()
    module()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    check_particles_independent(1, ModelGuideCall(module.model, module), {}, 4)
    check_particles_independent(1, ModelGuideCall(lambda: module.model(), lambda: module()), {}, 4)
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
    assert before["norm.num_batches_tracked"] == 1


def test_number_of_trial_particles_is_unambiguous(run_once):
    def nine():
        with pyro.plate("data", 8):
            pyro.sample("z", dist.Bernoulli(torch.full((9, 8), 0.5)))

    assert unambiguous_num_particles(run_once(nine, nine)) == 10


FLAGGED = {
    "Independent": lambda loc: dist.Normal(loc, 1.0).expand([3]).to_event(1).has_rsample_(False),
    "Independent of a flagged one": lambda loc: dist.Normal(loc, 1.0).expand([3]).has_rsample_(False).to_event(1),
    "Weibull": lambda loc: dist.Weibull(loc.exp(), 1.0).has_rsample_(False).expand([3]).to_event(1),
    "Gumbel": lambda loc: dist.Gumbel(loc, 1.0).has_rsample_(False).expand([3]).to_event(1),
    "TransformedDistribution": lambda loc: (
        dist.TransformedDistribution(dist.Normal(loc, 1.0).expand([3]), [AffineTransform(0.0, 2.0)])
        .to_event(1)
        .has_rsample_(False)
    ),
}


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("make", FLAGGED.values(), ids=FLAGGED)
def test_lost_flag_is_explained_as_without_vectorization(make, vectorize):
    def flagged_guide():
        pyro.sample("z", make(pyro.param("loc", torch.tensor(0.7))))

    def model():
        prior = dist.LogNormal if make is FLAGGED["Weibull"] else dist.Normal
        z = pyro.sample("z", prior(0.0, 1.0).expand([3]).to_event(1))
        observe("x", z.sum(-1), torch.tensor(1.0))

    elbo = BlackBoxELBO(2, vectorize_particles=vectorize)
    if make is FLAGGED["Independent of a flagged one"] and not vectorize:
        elbo.loss_and_grads(model, flagged_guide)  # where it is kept
        return
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^has_rsample_\(False\).*use NonReparameterized\(distribution\)"):
            elbo.loss_and_grads(model, flagged_guide)
