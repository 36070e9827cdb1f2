"""Subsampled plates: the loss and gradient of ``pyro.infer.Trace_ELBO``, or an error."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal

from zoo.inference.elbo import BlackBoxELBO

SIZE = 10
DATA = torch.arange(SIZE, dtype=torch.float64) * 3
SOME, OTHERS = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])


def model_of(size=SIZE, **plate):
    """One mean of all data, and a latent variable for each datum."""

    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", size, **plate) as i:
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=DATA[i])

    return model


def guide_of(size=SIZE, **plate):
    def guide():
        pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))
        with pyro.plate("data", size, **plate) as i:
            pyro.sample("z", dist.Normal(pyro.param("locs", torch.zeros(size))[i], 1.0))

    return guide


def auto(kind, model, **plate):
    create = (lambda: pyro.plate("data", SIZE, **plate)) if plate else None
    return kind(model, create_plates=create)


def loss_and_gradient(elbo, model, guide, seed=0):
    """Loss, and gradients by parameter name, after a first run that creates the parameters."""
    pyro.set_rng_seed(seed)
    elbo.loss_and_grads(model, guide)
    parameters = dict(pyro.get_param_store().named_parameters())
    for parameter in parameters.values():
        parameter.grad = None
    pyro.set_rng_seed(seed + 1)
    loss = elbo.loss_and_grads(model, guide)
    return loss, {name: parameter.grad for name, parameter in parameters.items()}


def assert_equal_to_trace_elbo(model, make_guide, **options):
    found = []
    for elbo in (BlackBoxELBO(**options), Trace_ELBO(**options)):
        pyro.clear_param_store()
        found.append(loss_and_gradient(elbo, model, make_guide()))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert any(gradient.abs().sum() > 0 for gradient in their_gradients.values())
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-6, atol=1e-6)


MODELS_AND_GUIDES = {
    "guide and model subsample": (model_of(subsample_size=3), lambda: guide_of(subsample_size=3)),
    "the guide alone subsamples": (model_of(), lambda: guide_of(subsample_size=3)),
    "the guide alone is given indices": (model_of(), lambda: guide_of(subsample=SOME)),
    "guide and model are given the same indices": (model_of(subsample=SOME), lambda: guide_of(subsample=SOME)),
    "the model has the size of the guide's indices": (model_of(subsample_size=3), lambda: guide_of(subsample=SOME)),
    "an automatic guide of a model that subsamples": (
        model_of(subsample_size=3),
        lambda: auto(AutoNormal, model_of(subsample_size=3)),
    ),
    "an automatic guide whose plates alone subsample": (
        model_of(),
        lambda: auto(AutoNormal, model_of(), subsample_size=3),
    ),
    "an automatic guide whose plates are given indices": (
        model_of(),
        lambda: auto(AutoDelta, model_of(), subsample=SOME),
    ),
}


@pytest.mark.parametrize("name", MODELS_AND_GUIDES)
@pytest.mark.parametrize("options", [{}, {"num_particles": 3, "vectorize_particles": True}], ids=["one", "vectorized"])
def test_model_uses_indices_of_the_guide(name, options):
    assert_equal_to_trace_elbo(*MODELS_AND_GUIDES[name], **options)


def test_model_uses_indices_of_a_sequential_plate_of_the_guide():
    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        for i in pyro.plate("data", SIZE):
            pyro.sample(f"x{i}", dist.Normal(pyro.sample(f"z{i}", dist.Normal(mean, 1.0)), 1.0), obs=DATA[i])

    def guide():
        pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))
        locs = pyro.param("locs", torch.zeros(SIZE))
        for i in pyro.plate("data", SIZE, subsample_size=3):
            pyro.sample(f"z{i}", dist.Normal(locs[i], 1.0))

    assert_equal_to_trace_elbo(model, lambda: guide)


def test_easy_guide_plates_subsample():
    class Guide(EasyGuide):
        def guide(self):
            self.group("mean").sample("auxiliary", dist.Normal(pyro.param("loc", torch.tensor([0.1])), 1.0).to_event(1))
            with self.plate("data", SIZE, subsample_size=3) as i:
                pyro.sample("z", dist.Normal(pyro.param("locs", torch.zeros(SIZE))[i], 1.0))

    assert_equal_to_trace_elbo(model_of(), lambda: Guide(model_of()))


def test_shared_plate_objects_subsample():
    shared = pyro.plate("data", SIZE, subsample=SOME)

    def model():
        with shared as i:
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=DATA[i])

    def guide():
        with shared as i:
            pyro.sample("z", dist.Normal(pyro.param("locs", torch.zeros(SIZE))[i], 1.0))

    assert_equal_to_trace_elbo(model, lambda: guide)


@pytest.mark.parametrize(
    ("model", "guide", "sentence"),
    [
        (model_of(subsample=SOME), guide_of(subsample=OTHERS), "'data' has other indices in subsample= than"),
        (model_of(subsample=SOME), guide_of(subsample_size=3), "other indices .* than in the guide"),
        (model_of(subsample=SOME), guide_of(), "pass the same indices to guide and model"),
        (model_of(subsample=SOME), AutoNormal(model_of(subsample=SOME)), "with create_plates= for an automatic"),
        (model_of(subsample_size=4), guide_of(subsample_size=3), "subsample_size=4, but 3 elements in the guide"),
        (model_of(subsample_size=3), guide_of(), "subsample_size=3, but 10 elements in the guide"),
        (model_of(subsample_size=3), guide_of(8, subsample_size=3), "8 elements in the guide and 10 in the model"),
    ],
)
def test_two_minibatches_of_one_plate_raise(model, guide, sentence):
    with pytest.raises(ValueError, match=sentence):
        BlackBoxELBO().loss(model, guide)


def test_plate_created_twice_with_other_indices_raises():
    def guide():
        guide_of(subsample=SOME)()
        with pyro.plate("data", SIZE, subsample=OTHERS):
            pass

    with pytest.raises(ValueError, match=r"other indices .* than earlier in the same program"):
        BlackBoxELBO().loss(model_of(), guide)


def test_plate_with_hidden_indices_raises():
    made_before = pyro.plate("data", SIZE, subsample=OTHERS)

    def guide():
        with made_before as i:
            pyro.sample("z", dist.Normal(pyro.param("locs", torch.zeros(SIZE))[i], 1.0))

    model = poutine.condition(model_of(subsample_size=3), {"mean": torch.tensor(0.0)})
    with pytest.raises(ValueError, match=r"indices of plate 'data' are drawn before the guide runs .* or hidden by"):
        BlackBoxELBO().loss(model, guide)
    hidden = poutine.block(model, expose=["z", "x"])
    plain = poutine.block(guide_of(subsample_size=3), hide=["mean"])
    with pytest.raises(ValueError, match=r"plate 'data' are drawn before the model runs .* or hidden by"):
        BlackBoxELBO().loss(hidden, plain)
