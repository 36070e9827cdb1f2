"""Estimators that are compared."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from torch import nn

from zoo.inference.diagnostics import BASIC, CONTROL_VARIATE, ScoreFunctionELBO, default_estimators, variance_report
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo import _tracing as recording

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


def one_bit():
    pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))


def guide(**more):
    def run():
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.1))), infer={"baseline": more})

    return run


def test_default_estimators_are_those_of_paper_and_one_per_baseline():
    assert list(default_estimators(2)) == [BASIC, "Rao-Blackwell", CONTROL_VARIATE, "moving_average", "leave_one_out"]
    assert list(default_estimators(1)) == [BASIC, "Rao-Blackwell", "moving_average"]
    assert all(elbo.num_particles == 2 for elbo in default_estimators(2).values())


def test_default_estimators_include_networks_of_guide():
    informed = guide(nn_baseline=nn.Linear(1, 1), nn_baseline_input=torch.ones(1))
    found = variance_report(one_bit, informed, num_samples=20, num_particles=2)
    assert found.row("learned").variance.value > 0
    with pytest.raises(KeyError):
        variance_report(one_bit, guide(), num_samples=20, num_particles=2).row("learned")


class Secretive(dist.Bernoulli):
    """Keeps what it is computed from to itself."""

    def __init__(self, logits):
        self.hidden = [lambda: logits]
        super().__init__(logits=logits.detach())

    def log_prob(self, value):
        return dist.Bernoulli(logits=self.hidden[0]()).log_prob(value)

    def expand(self, batch_shape, _instance=None):
        return self


class TestSkippedEstimators:
    def test_unsupported_estimator_is_skipped_with_reason(self):
        def secretive():
            pyro.sample("z", Secretive(pyro.param("logit", torch.tensor(0.1))))

        found = variance_report(one_bit, secretive, num_samples=20)
        assert list(found.skipped) == [CONTROL_VARIATE]
        assert f"skipped: {CONTROL_VARIATE}: site 'z'" in str(found)

    def test_estimator_without_differentiable_loss_is_skipped(self):
        pair = {"ours": BlackBoxELBO(2), "theirs": TraceGraph_ELBO(2)}
        found = variance_report(one_bit, guide(), num_samples=20, num_particles=2, estimators=pair)
        assert found.skipped == {
            "theirs": "TraceGraph_ELBO has no differentiable_loss, so its gradient cannot be measured"
        }

    def test_failure_of_first_estimator_raises(self):
        def another():
            pyro.sample("y", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.1))))

        with pytest.raises(ValueError, match=r"^the guide samples site 'y', which the model does not have"):
            variance_report(one_bit, another, num_samples=20)

    def test_estimator_with_other_number_of_particles_raises(self):
        with pytest.raises(ValueError, match=r"^estimator 'more' has 3 particles, .* set num_particles=3"):
            variance_report(
                one_bit,
                guide(),
                num_samples=20,
                num_particles=2,
                estimators={"as many": Trace_ELBO(2), "more": Trace_ELBO(3)},
            )


LOGITS = torch.tensor([0.4, -0.8, 0.1], dtype=torch.float64)
X = torch.tensor([0.7, -0.2, 1.1], dtype=torch.float64)


def three_bits(logits):
    a = pyro.sample("a", dist.Bernoulli(torch.tensor(0.3)))
    pyro.sample("x", dist.Normal(2 * a, 1.0), obs=X[0])
    with pyro.plate("data", 2):
        b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.6)))
        pyro.sample("y", dist.Normal(3 * b, 1.0), obs=X[1:])


def three_bits_guide(logits):
    pyro.sample("a", dist.Bernoulli(logits=logits[0]))
    with pyro.plate("data", 2):
        pyro.sample("b", dist.Bernoulli(logits=logits[1:]))


def terms(z):
    """The ELBO's terms that go with each bit: ``(particles, 3)``."""
    prior = dist.Bernoulli(torch.tensor([0.3, 0.6, 0.6])).log_prob(z)
    likelihood = dist.Normal(torch.tensor([2.0, 3.0, 3.0]) * z, 1.0).log_prob(X)
    return prior + likelihood - dist.Bernoulli(logits=LOGITS).log_prob(z)


def gradient(kind, z, vectorize, monkeypatch):
    """Gradient of the loss where the particles draw these bits."""
    given = list(z)

    def draw(name, distribution):
        if name not in ("a", "b"):  # the indices of a plate
            return distribution()
        if vectorize:
            found, shape = z[:, 0] if name == "a" else z[:, 1:], distribution.shape()
            if shape.numel() != found.numel():  # a trial of other particles
                return distribution()
            return found.reshape(shape).clone()  # values that share memory would pass for one
        return (given[0][0] if name == "a" else given.pop(0)[1:]).clone()

    elbo = kind(len(z), vectorize, "none", max_plate_nesting=1)
    monkeypatch.setattr(recording, "draw", draw)
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(elbo.differentiable_loss(three_bits, three_bits_guide, logits), logits)[0]


BITS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)


@pytest.mark.parametrize("vectorize", [False, True])
class TestScoreFunctionELBO:
    def test_each_score_is_multiplied_by_the_whole_elbo_of_its_particle(self, vectorize, monkeypatch):
        for pair in itertools.product(BITS, repeat=2):
            z = torch.stack(pair)
            score = z - LOGITS.sigmoid()
            expected = -(score * terms(z).sum(-1, keepdim=True)).mean(0)
            torch.testing.assert_close(gradient(ScoreFunctionELBO, z, vectorize, monkeypatch), expected)

    def test_black_box_elbo_multiplies_each_score_by_its_own_terms(self, vectorize, monkeypatch):
        z = BITS[[1, 6]]
        expected = -((z - LOGITS.sigmoid()) * terms(z)).mean(0)
        torch.testing.assert_close(gradient(BlackBoxELBO, z, vectorize, monkeypatch), expected)

    def test_gradient_has_the_same_expectation_as_black_box_elbo(self, vectorize, monkeypatch):
        weight = dist.Bernoulli(logits=LOGITS).log_prob(BITS).sum(-1).exp()

        def expectation(kind):
            gradients = [gradient(kind, torch.stack([z, z]), vectorize, monkeypatch) for z in BITS]
            return weight @ torch.stack(gradients)

        torch.testing.assert_close(expectation(ScoreFunctionELBO), expectation(BlackBoxELBO))


def test_score_function_elbo_has_the_pathwise_gradient_of_black_box_elbo():
    def normal_guide():
        pyro.sample("z", dist.Normal(pyro.param("mean", torch.tensor(0.3)), 1.0))

    def normal_model():
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0)), 1.0), obs=X[0])

    found = []
    for kind in (ScoreFunctionELBO, BlackBoxELBO):
        torch.manual_seed(1)
        loss = kind(baseline="none").differentiable_loss(normal_model, normal_guide)
        found.append(torch.autograd.grad(loss, pyro.param("mean").unconstrained())[0])
    assert found[0] == found[1]
