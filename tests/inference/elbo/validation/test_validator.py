"""Checks are on by default, and validate=False skips all of them without changing any gradient."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._messages import NonFiniteELBOError
from zoo.inference.elbo._validation import validator

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


def gradients(elbo, program, theta, steps=3):
    torch.manual_seed(0)
    losses = [elbo.differentiable_loss(program.model, program.guide, theta) for _ in range(steps)]
    return [torch.autograd.grad(loss, theta)[0] for loss in losses], torch.get_rng_state()


@pytest.mark.parametrize(
    "options", [{}, {"num_particles": 3, "baseline": "optimal"}, {"num_particles": 2, "bound": "iwae"}]
)
@pytest.mark.parametrize("name", ["chain", "plates", "hidden", "branch", "beside_a_path", "masks"])
def test_gradients_without_validation_are_bitwise_equal(name, options, programs, parameters):
    if name == "masks" and options.get("bound") == "iwae":
        pytest.skip("the scales differ")
    program = programs[name]()
    theta = parameters(program)
    (found, state), (expected, other) = (
        gradients(BlackBoxELBO(**options, validate=validate), program, theta) for validate in (False, True)
    )
    assert all(map(torch.equal, found, expected))
    assert torch.equal(state, other)


def test_vectorized_gradients_without_validation_are_bitwise_equal(programs, parameters):
    program = programs["plates"]()
    theta = parameters(program)
    elbos = [BlackBoxELBO(4, True, "none", max_plate_nesting=1, validate=validate) for validate in (False, True)]
    for elbo in elbos:  # the first step of a validating ELBO draws trial runs
        torch.manual_seed(0)
        elbo.differentiable_loss(program.model, program.guide, theta)
    found, expected = (gradients(elbo, program, theta)[0] for elbo in elbos)
    assert all(map(torch.equal, found, expected))


def guide():
    pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.tensor(0.3))))


def model():
    pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.5)), 1.0), obs=torch.tensor(1.0))


CHECKS = ["check_match", "check_grad_mode", "check_particles_independent", "check_finite", "check_gradients"]


@pytest.mark.parametrize("vectorize", [False, True])
def test_no_check_runs_without_validation(vectorize, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a check runs")

    for name in CHECKS:
        monkeypatch.setattr(validator, name, fail)
    monkeypatch.setattr(validator.SiteRegistry, "validate", fail)
    monkeypatch.setattr(validator.RunCounts, "signature", fail)
    monkeypatch.setattr(dist.Bernoulli, "_validate_sample", fail)
    elbo = BlackBoxELBO(2, vectorize, validate=False)
    for _ in range(3):
        elbo.loss_and_grads(model, guide)
        elbo.loss(model, guide)


def mismatched_guide():
    guide()
    pyro.sample("y", dist.Bernoulli(0.5))


def infinite_model():
    model()
    pyro.factor("wall", torch.tensor(torch.inf))


@pytest.mark.parametrize(
    ("model", "guide", "error"), [(model, mismatched_guide, ValueError), (infinite_model, guide, NonFiniteELBOError)]
)
def test_checks_are_on_by_default(model, guide, error):
    with pytest.raises(error):
        BlackBoxELBO().loss_and_grads(model, guide)
    BlackBoxELBO(validate=False).loss_and_grads(model, guide)


def test_distribution_validation_is_restored_after_a_step_without_validation():
    def broken():
        raise KeyError("broken")

    elbo = BlackBoxELBO(validate=False)
    with pyro.validation_enabled(True):
        elbo.loss(model, guide)
        assert torch.distributions.Distribution._validate_args
        with pytest.raises(KeyError):
            elbo.loss(broken, guide)
        assert torch.distributions.Distribution._validate_args


def test_nonfinite_error_has_step_and_reason():
    with pytest.raises(NonFiniteELBOError) as caught:
        BlackBoxELBO().loss_and_grads(infinite_model, guide)
    assert caught.value.step == 1
    assert (
        caught.value.reason
        == "the log-probability of site 'wall' (Unit) in the model is not finite; its log_factor is not finite"
    )


class Likelihood:
    """A model, freed as soon as no reference is left, whose address is then reused."""

    def __init__(self, mixes_particles):
        self.mixes_particles = mixes_particles

    def __call__(self):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(9 + (z.sum() if self.mixes_particles else z), 1.0), obs=torch.tensor(1.0))


def test_freed_program_does_not_vouch_for_another_at_its_address():
    elbo, addresses, num_reused = BlackBoxELBO(4, True), set(), 0
    for _ in range(30):
        verified = Likelihood(mixes_particles=False)
        elbo.loss_and_grads(verified, guide)
        addresses.add(id(verified))
        del verified
        wrong = Likelihood(mixes_particles=True)
        num_reused += id(wrong) in addresses
        with pytest.raises(ValueError, match="requires model and guide to be independent across particles"):
            elbo.loss_and_grads(wrong, guide)
        del wrong
    assert num_reused > 10
