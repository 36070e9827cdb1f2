"""Sites sampled while gradients are disabled have the gradient of the ELBO, or raise."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.elbo import BlackBoxELBO, _densities, _tracing
from zoo.inference.elbo._validation import validator

DATA = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
OFF = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
PLACES = ("the sample statement", "the distribution too", "the whole guide")

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


def bits(theta):
    return dist.Bernoulli(logits=theta)


def model():
    with pyro.plate("data", 3):
        w = pyro.sample("w", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(w, 1.0), obs=DATA)


def normal_model():
    with pyro.plate("data", 3):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(w, 1.0), obs=DATA)


def guide_of(make, off, where):
    def guide():
        theta = pyro.param("theta", torch.tensor(0.3))
        distribution = make(theta)
        with pyro.plate("data", 3), off():
            pyro.sample("w", make(theta) if where == "the distribution too" else distribution)

    def whole():
        with off():
            guide()

    return whole if where == "the whole guide" else guide


def gradient(model, guide, particles=4, **options):
    pyro.clear_param_store()
    torch.manual_seed(0)
    BlackBoxELBO(particles, **options).loss_and_grads(model, guide)
    return pyro.param("theta").grad.item()


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("where", PLACES)
def test_discrete_site_has_the_same_gradient_under_no_grad(where, vectorized):
    options = {"vectorize_particles": vectorized}
    expected = gradient(model, guide_of(bits, torch.enable_grad, where), **options)
    assert expected != 0
    assert gradient(model, guide_of(bits, torch.no_grad, where), **options) == pytest.approx(expected, abs=1e-12)


def test_discrete_site_has_the_same_gradient_in_inference_mode():
    expected = gradient(model, guide_of(bits, torch.enable_grad, PLACES[0]))
    assert gradient(model, guide_of(bits, torch.inference_mode, PLACES[0])) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("off", OFF.values(), ids=OFF)
def test_site_with_rsample_uses_the_score_function(off):
    """No pathwise gradient leaves such a block. The exact one is 6 θ - Σ x; the standard error is 0.035 (measured)."""
    guide = guide_of(lambda theta: dist.Normal(theta, 1.0), off, PLACES[0])
    found = gradient(normal_model, guide, 20_000, vectorize_particles=True)
    assert found == pytest.approx(6 * 0.3 - 3.5, abs=5 * 0.035)


def test_score_accounts_for_computations_under_no_grad():
    """The pathwise gradient would lack the term of the likelihood."""

    def of_sum():
        with pyro.plate("data", 3):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            with torch.no_grad():
                mean = 2 * w
            pyro.sample("x", dist.Normal(mean, 1.0), obs=DATA)

    guide = guide_of(lambda theta: dist.Normal(theta, 1.0), torch.no_grad, PLACES[0])
    found = gradient(of_sum, guide, 20_000, vectorize_particles=True)
    assert found == pytest.approx(3 * 0.3 + 12 * 0.3 - 7, abs=0.5)


@pytest.mark.parametrize("off", OFF.values(), ids=OFF)
@pytest.mark.parametrize("vectorized", [False, True])
def test_distribution_of_parameters_computed_under_no_grad_raises(off, vectorized):
    guide = guide_of(lambda theta: dist.Bernoulli(logits=2 * theta), off, "the distribution too")
    with pytest.raises(ValueError, match=r"site 'w' .* in the guide is created while gradients are disabled"):
        gradient(model, guide, vectorize_particles=vectorized)


def test_distribution_of_the_model_computed_under_no_grad_raises():
    def learned():
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", 3):
            w = pyro.sample("w", dist.Bernoulli(0.4))
            with torch.no_grad():
                pyro.sample("x", dist.Normal(w + shift, 1.0), obs=DATA)

    with pytest.raises(ValueError, match=r"site 'x' .* in the model is created while gradients are disabled"):
        gradient(learned, guide_of(bits, torch.enable_grad, PLACES[0]))


def test_distribution_of_the_model_created_before_has_its_gradient():
    def learned(off):
        def program():
            shift = pyro.param("theta", torch.tensor(0.3))
            with pyro.plate("data", 3):
                w = pyro.sample("w", dist.Bernoulli(0.4))
                law = dist.Normal(w + shift, 1.0)
                with off():
                    pyro.sample("x", law, obs=DATA)

        return program

    def guide():
        with pyro.plate("data", 3):
            pyro.sample("w", dist.Bernoulli(0.5))

    expected = gradient(learned(torch.enable_grad), guide)
    assert gradient(learned(torch.no_grad), guide) == pytest.approx(expected, abs=1e-12)


def test_constants_under_no_grad_are_supported():
    def guide():
        theta = pyro.param("theta", torch.tensor(0.3))
        with pyro.plate("data", 3), torch.no_grad():
            pyro.sample("w", dist.Bernoulli(logits=theta.detach() * 2))
        pyro.sample("y", dist.Normal(theta, 1.0))

    def with_another():
        model()
        pyro.sample("y", dist.Normal(0.0, 1.0))

    assert gradient(with_another, guide) != 0


def test_view_without_gradient_raises_if_sampled_outside():
    def guide():
        theta = pyro.param("theta", torch.tensor(0.3))
        with torch.no_grad():
            distribution = bits(theta).expand([3])
        with pyro.plate("data", 3):
            pyro.sample("w", distribution)

    with pytest.raises(ValueError, match=r"site 'w' .* is created while gradients are disabled"):
        gradient(model, guide)


USES = {
    "alone": lambda view, other: view[0] * 1,
    "in_a_sum": lambda view, other: view.sum() + other,
    "in_a_product": lambda view, other: (view * other).sum(),
}


@pytest.mark.parametrize("where", ["guide", "model"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_distribution_computed_outside_from_a_view_without_gradient_raises(use, where):
    def logits():
        theta, other = pyro.param("theta", torch.tensor([0.3])), pyro.param("other", torch.tensor(0.2))
        with torch.no_grad():
            view = theta.view(1)
        return use(view, other)

    def guide():
        pyro.sample("w", dist.Bernoulli(logits=logits() if where == "guide" else torch.tensor(0.3)))

    def of_one():
        w = pyro.sample("w", dist.Bernoulli(0.4))
        if where == "model":
            w = w + logits()
        pyro.sample("x", dist.Normal(w, 1.0), obs=DATA[0])

    with pytest.raises(ValueError, match=f"in the {where} is created while gradients are disabled"):
        gradient(of_one, guide)


def test_parameter_that_is_a_view_of_constants_is_trained():
    theta = torch.zeros(3)[0].requires_grad_()

    def guide():
        pyro.sample("w", dist.Bernoulli(logits=theta))

    def of_one():
        w = pyro.sample("w", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(w, 1.0), obs=DATA[0])

    torch.manual_seed(0)
    BlackBoxELBO(4).differentiable_loss(of_one, guide).backward()
    assert theta.grad != 0


def test_point_mass_under_no_grad_raises():
    with pytest.raises(ValueError, match=r"support of site 'w' .* depends on .* not under torch\.no_grad"):
        gradient(normal_model, guide_of(dist.Delta, torch.no_grad, PLACES[0]))


@pytest.mark.parametrize("off", OFF.values(), ids=OFF)
def test_step_under_no_grad_raises_and_loss_does_not(off):
    guide, elbo = guide_of(bits, torch.enable_grad, PLACES[0]), BlackBoxELBO()
    with off():
        with pytest.raises(ValueError, match=r"is called while gradients are disabled.*loss\(\) to evaluate"):
            elbo.loss_and_grads(model, guide)
        assert elbo.loss(model, guide) > 0
        assert elbo.differentiable_loss(model, guide) > 0


class TestPlantedBugIsDetected:
    def test_view_that_is_not_restored(self, monkeypatch):
        monkeypatch.setattr(_tracing, "restore_gradients", lambda distribution: distribution)
        monkeypatch.setattr(validator, "check_grad_mode", lambda *_, **__: None)
        pyro.clear_param_store()
        BlackBoxELBO(4).loss_and_grads(model, guide_of(bits, torch.no_grad, PLACES[0]))
        assert pyro.param("theta").grad is None


@pytest.mark.parametrize("view", [lambda x: x.expand(3), lambda x: x.view(1), lambda x: x.expand(2, 3).unsqueeze(0)])
@pytest.mark.parametrize("leaf", [True, False])
def test_restored_view_propagates_gradients(view, leaf):
    x = torch.tensor(0.3, requires_grad=True)
    base = x if leaf else 2 * x
    with torch.no_grad():
        made = dist.Bernoulli(logits=view(base)).to_event(1)
    restored = _densities.restore_gradients(made)
    assert torch.equal(restored.base_dist.logits, made.base_dist.logits)
    assert restored.base_dist.logits is restored.base_dist._param  # which shows that logits were given
    (found,) = torch.autograd.grad(restored.base_dist.logits.sum(), x, retain_graph=True)
    (expected,) = torch.autograd.grad(view(base).sum(), x)
    assert found == expected


def test_distribution_with_gradients_is_unchanged():
    distribution = dist.Normal(torch.zeros(3, requires_grad=True), 1.0).to_event(1)
    assert _densities.restore_gradients(distribution) is distribution
