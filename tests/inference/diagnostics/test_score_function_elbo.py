import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.diagnostics.candidates import ScoreFunctionELBO
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo import _tracing as recording

pytestmark = pytest.mark.filterwarnings("ignore:site .* stands outside every plate")

LOGITS = torch.tensor([0.4, -0.8, 0.1], dtype=torch.float64)
X = torch.tensor([0.7, -0.2, 1.1], dtype=torch.float64)


def model(logits):
    a = pyro.sample("a", dist.Bernoulli(torch.tensor(0.3)))
    pyro.sample("x", dist.Normal(2 * a, 1.0), obs=X[0])
    with pyro.plate("data", 2):
        b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.6)))
        pyro.sample("y", dist.Normal(3 * b, 1.0), obs=X[1:])


def guide(logits):
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
    return torch.autograd.grad(elbo.differentiable_loss(model, guide, logits), logits)[0]


BITS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)


@pytest.mark.parametrize("vectorize", [False, True])
class TestTheGradient:
    def test_has_the_whole_elbo_of_the_particle_as_every_score_s_signal(self, vectorize, monkeypatch):
        for pair in itertools.product(BITS, repeat=2):
            z = torch.stack(pair)
            score = z - LOGITS.sigmoid()
            expected = -(score * terms(z).sum(-1, keepdim=True)).mean(0)
            torch.testing.assert_close(gradient(ScoreFunctionELBO, z, vectorize, monkeypatch), expected)

    def test_has_not_without_it(self, vectorize, monkeypatch):
        z = BITS[[1, 6]]
        expected = -((z - LOGITS.sigmoid()) * terms(z)).mean(0)
        torch.testing.assert_close(gradient(BlackBoxELBO, z, vectorize, monkeypatch), expected)

    def test_has_the_same_expectation(self, vectorize, monkeypatch):
        weight = dist.Bernoulli(logits=LOGITS).log_prob(BITS).sum(-1).exp()

        def expectation(kind):
            gradients = [gradient(kind, torch.stack([z, z]), vectorize, monkeypatch) for z in BITS]
            return weight @ torch.stack(gradients)

        torch.testing.assert_close(expectation(ScoreFunctionELBO), expectation(BlackBoxELBO))


def test_pathwise_sites_have_the_same_gradient():
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
