import pytest
import torch

from examples.patients import FactorFamily, Guide, fitting, model
from examples.patients.fitting import Fitting, estimate_elbo, fit
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo import _tracing as recording

PARTICLES = 3
SERIES = FactorFamily(series=True, positive=False, factors=2)


@pytest.fixture
def gradients(monkeypatch):
    """Bound and gradients of ``estimate_elbo`` and of ``BlackBoxELBO`` for a guide, on the same draws."""
    elsewhere = recording.draw

    def both(family, guide, labs):
        factors_q = {"weights": guide.weights(), "offsets": guide.offsets(), "states": guide.states()}
        drawn = {name: q.expand((PARTICLES, *q.batch_shape)).sample() for name, q in factors_q.items()}
        in_plates = {
            "weights": drawn["weights"][:, None, None],
            "offsets": drawn["offsets"][:, None, None, None],
            "states": drawn["states"],
        } | {f"states_{visit}": drawn["states"][:, visit, None].clone() for visit in range(labs.values.shape[1])}

        def again(name, distribution):
            given = in_plates.get(name)
            if given is None or given.shape != distribution.shape():  # as in a trial of other particles
                return elsewhere(name, distribution)
            return given.clone()

        monkeypatch.setattr(fitting, "sample_factors", lambda factors_q: drawn)
        monkeypatch.setattr(recording, "draw", again)
        guide.zero_grad()
        bound, loss = estimate_elbo(family, guide, labs, PARTICLES)
        loss.backward()
        ours = {name: parameter.grad.clone() for name, parameter in guide.named_parameters()}
        guide.zero_grad()
        elbo = BlackBoxELBO(PARTICLES, vectorize_particles=True, max_plate_nesting=4.0)
        theirs = -elbo.loss_and_grads(lambda labs: model(family, labs), guide, labs)
        assert bound.item() == pytest.approx(theirs)
        return ours, {name: parameter.grad for name, parameter in guide.named_parameters()}

    return both


def test_gradient_equals_that_of_black_box_elbo_on_the_same_samples(family, labs, gradients):
    torch.manual_seed(0)
    ours, theirs = gradients(family, Guide(family, labs), labs)
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(ours[name], gradient)


def test_gradient_without_the_prior_of_the_next_state_differs(double, labs, gradients, monkeypatch):
    independent = FactorFamily(series=False, positive=False)
    right = fitting.local_terms
    monkeypatch.setattr(fitting, "local_terms", lambda name, family, *terms: right(name, independent, *terms))
    torch.manual_seed(0)
    ours, theirs = gradients(SERIES, Guide(SERIES, labs), labs)
    assert (ours["weights.shift"] - theirs["weights.shift"]).abs().max() < 1e-9
    assert (ours["states.raw_mean"] - theirs["states.raw_mean"]).abs().max() > 1e-3


def guide_of(labs, seed=0):
    torch.manual_seed(seed)
    return Guide(SERIES, labs)


def test_fit_increases_the_elbo_and_is_reproducible(split):
    settings = Fitting(steps=60, particles=8)
    first, second, other = (fit(SERIES, guide_of(split.train), split.train, settings, seed) for seed in (1, 1, 2))
    assert first == second != other
    assert sum(first[-10:]) > 0.8 * sum(first[:10])  # both are negative


def test_global_random_state_is_unchanged(split):
    guide = guide_of(split.train)
    before = torch.get_rng_state()
    fit(SERIES, guide, split.train, Fitting(steps=2), seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_weights_and_offsets_are_unchanged(split):
    trained = guide_of(split.train)
    guide = trained.for_patients(split.shown)
    start = guide.states.raw_mean.detach().clone()
    fit(SERIES, guide, split.shown, Fitting(steps=3), seed=1)
    assert torch.equal(guide.weights().mean, trained.weights().mean)
    attended = split.shown.attended.mT[..., None, None].expand_as(start)
    moved = guide.states.raw_mean != start
    assert moved[attended].all()
    assert not moved[~attended].any()


def test_callback_can_stop_a_fit(split):
    steps = []
    fit(
        SERIES, guide_of(split.train), split.train, Fitting(steps=9), 1, lambda step, _: steps.append(step) or step == 2
    )
    assert steps == [1, 2]
    settings = Fitting(steps=2)
    assert len(fit(SERIES, guide_of(split.train), split.train, settings, 1, lambda step, _: step == 4, True)) == 4


def test_labs_or_parameters_that_are_nan_raise(split):
    broken = split.train._replace(values=split.train.values * torch.nan)
    with pytest.raises(ValueError, match=r"the ELBO of gamma_normal_ts is not finite at step 1; lower"):
        fit(SERIES, guide_of(split.train), broken, Fitting(steps=2), seed=1)
    with pytest.raises(ValueError, match=r"is not finite at step 2; lower the learning rate"):
        fit(SERIES, guide_of(split.train), split.train, Fitting(steps=2, learning_rate=1e36), seed=1)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"particles": 1}])
def test_invalid_settings_raise(wrong):
    with pytest.raises(ValueError, match="a fit needs at least 1 step, a positive learning rate"):
        Fitting(**{"steps": 5, **wrong})
