"""Particles that run at once are kept apart, or it is said that they are not."""

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
def test_a_program_that_mixes_particles_is_refused(particles, bound):
    """Again and again: what was refused once is not taken for known."""
    elbo = BlackBoxELBO(particles, vectorize_particles=True, bound=bound)
    sentence = r"to be independent across particles, but log p of site 'x' is .* with one.*sum\(-1, keepdim=True\)"
    for _ in range(2):
        with pytest.raises(ValueError, match=sentence):
            elbo.loss_and_grads(model_of(summed), guide)


def test_is_found_once_it_shows():
    """At first the sum has no weight, and nothing tells that particles are mixed."""

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


def test_would_be_taken_without_the_check(monkeypatch):
    monkeypatch.setattr(vectorization, "TOLERANCE", torch.inf)
    assert BlackBoxELBO(2, vectorize_particles=True).loss_and_grads(model_of(summed), guide) > 0


def test_so_is_one_that_counts_dimensions_from_the_left():
    with pytest.raises(ValueError, match="requires model and guide to be independent across particles"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(counted_from_the_left), guide)


def test_one_that_keeps_them_apart_is_not():
    assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(kept), guide) > 0


def test_a_distribution_that_cannot_be_expanded_is_told_of():
    def flow():
        base = dist.Normal(torch.tensor(0.0), 1.0).has_rsample_(False)
        pyro.sample("z", dist.TransformedDistribution(base, [AffineTransform(0.0, 2.0)]))

    with pytest.raises(ValueError, match=r"^has_rsample_\(False\) cannot be kept .*use NonReparameterized"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(flow, flow)


def test_a_plate_that_stands_where_the_particles_would_is_told_of():
    elbo = BlackBoxELBO(3, vectorize_particles=True, max_plate_nesting=0)
    with pytest.raises(ValueError, match=r"have 1 dimensions, and max_plate_nesting=0 .* no dimension.*set it to 1"):
        elbo.loss_and_grads(model_of(kept), guide)


def test_so_is_a_batch_that_comes_later():
    """Data that are as many as the particles, and were not there when the particles' place was found."""

    def model(data):
        observe("x", pyro.sample("z", dist.Bernoulli(0.5)), data)

    def one_bit(data):
        pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))

    elbo = BlackBoxELBO(4, vectorize_particles=True)
    elbo.loss_and_grads(model, one_bit, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"have 1 dimensions, and max_plate_nesting=0"):
        elbo.loss_and_grads(model, one_bit, torch.ones(4))


def test_another_program_is_tried_though_it_looks_the_same():
    elbo = BlackBoxELBO(4, vectorize_particles=True)
    right, wrong = model_of(kept), model_of(lambda z: observe("x", z.sum().expand(1), torch.ones(1)))
    for _ in range(5):
        elbo.loss_and_grads(right, guide)
    with pytest.raises(ValueError, match="requires model and guide to be independent across particles"):
        elbo.loss_and_grads(wrong, guide)


def test_a_program_that_is_made_anew_in_each_step_is_tried_at_powers_of_two(monkeypatch):
    tried = []
    monkeypatch.setattr(validator, "check_particles_independent", lambda *_: tried.append(0))
    elbo = BlackBoxELBO(4, vectorize_particles=True)
    for _ in range(100):
        elbo.loss_and_grads(model_of(kept), guide)
    assert len(tried) == 7


def test_every_program_that_differs_is_tried_however_many_there_are(monkeypatch):
    tried = []
    monkeypatch.setattr(validator, "check_particles_independent", lambda *_: tried.append(0))
    elbo = BlackBoxELBO(4, vectorize_particles=True)
    for number in range(100):
        elbo.loss_and_grads(model_of(lambda z, number=number: kept(z)), guide)
    assert len(tried) == 100


def test_other_terms_however_large_hide_nothing():
    def summed_beside_much(z):
        summed(z)
        pyro.factor("much", torch.tensor(1e6))

    with pytest.raises(ValueError, match="log p of site 'x'"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(summed_beside_much), guide)


def test_a_program_may_be_written_for_its_number_of_particles():
    def model():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
        observe("x", (z.reshape(4, 3).sum(-1, keepdim=True) if z.ndim > 1 else z.sum(-1, keepdim=True)), torch.ones(1))

    assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model, guide) > 0


def test_what_fails_for_one_particle_fails_with_its_own_words():
    def broken(z):
        raise IndexError("broken by itself")

    with pytest.raises(IndexError, match="broken by itself"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(broken), guide)


def noise():
    return torch.randn(1)


def coin():
    return torch.tensor([float(random.random() < 0.5)])


@pytest.mark.parametrize("thrown", [noise, coin])
def test_what_is_random_by_itself_is_not_taken_for_mixed(thrown):
    def noisy(z):
        observe("x", z.sum(-1, keepdim=True), 9 * thrown())

    random.seed(0)
    for _ in range(20):
        assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(noisy), guide) > 0


def test_a_small_difference_is_warned_of():
    """As that of a normalisation over all that is there."""

    def nearly(z):
        observe("x", z.sum(-1, keepdim=True) + 1e-3 * z.sum(), torch.ones(1))

    with pytest.warns(
        UserWarning,
        match=r"differ slightly .*: the particles are not independent, .* or the rounding",
    ):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model_of(nearly), guide)


def test_a_point_mass_may_be_rounded():
    """It follows from another site, and its density forgives no rounding."""

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def rounding():
        latent = pyro.sample("latent", dist.Normal(torch.tensor(1.0), 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(latent * (1 + 1e-12 * latent.numel())))

    assert BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(model, rounding) != 0


def test_the_check_uses_up_no_random_numbers():
    def coins(z):
        kept(z)
        random.random()

    before, python = torch.get_rng_state(), random.getstate()
    check_particles_independent(1, ModelGuideCall(model_of(coins), guide), {}, 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python


class Normalised(nn.Module):
    """Counts its calls in a buffer, as normalising layers do."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def model(self):
        model_of(kept)()
        self.norm(torch.randn(4, 3))

    def forward(self):
        guide()
        self.norm(torch.randn(4, 3))


def test_batch_normalisation_mixes_and_is_warned_of():
    norm = nn.BatchNorm1d(1)

    def normalised():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            observe(
                "x", norm(z.reshape(-1, 1) + 0.1 * torch.arange(3.0).repeat(z.numel() // 3)[:, None]).view_as(z), 1.0
            )

    with pytest.warns(UserWarning, match="because of batch normalization in train mode"):
        BlackBoxELBO(4, vectorize_particles=True).loss_and_grads(normalised, guide)


def test_the_check_leaves_buffers_as_they_were():
    module = Normalised()
    module()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    check_particles_independent(1, ModelGuideCall(module.model, module), {}, 4)
    check_particles_independent(1, ModelGuideCall(lambda: module.model(), lambda: module()), {}, 4)
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
    assert before["norm.num_batches_tracked"] == 1


def test_it_is_made_with_a_number_that_is_no_size(recorded):
    def nine():
        with pyro.plate("data", 8):
            pyro.sample("z", dist.Bernoulli(torch.full((9, 8), 0.5)))

    assert unambiguous_num_particles(recorded(nine, nine)) == 10


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
def test_a_flag_that_cannot_be_kept_is_explained_as_without_vectorization(make, vectorize):
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
