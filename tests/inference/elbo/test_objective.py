"""The ELBO and its surrogate loss."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.elbo._estimators import Estimators
from zoo.inference.elbo._objective import elbo_objective, select_particles, sum_terms, total
from zoo.inference.elbo._tracing import ModelGuideCall, trace_vectorized

X = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)


def model(theta):
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Bernoulli(logits=theta[0]))
        w = pyro.sample("w", dist.Normal(z, 1.0))
        pyro.sample("x", dist.Normal(w, 1.0), obs=X)


def guide(theta):
    with pyro.plate("data", 3):
        pyro.sample("z", dist.Bernoulli(logits=theta[1] * X))
        pyro.sample("w", dist.Normal(theta[2] * X, 1.0))


@pytest.fixture
def theta():
    return torch.tensor([0.3, -0.8, 0.6]).requires_grad_()


def by_hand(theta, z, w):
    """``log p``, ``log q(z)`` and ``log q(w)`` of each element."""
    log_p = (
        dist.Bernoulli(logits=theta[0]).log_prob(z) + dist.Normal(z, 1.0).log_prob(w) + dist.Normal(w, 1.0).log_prob(X)
    )
    return log_p, dist.Bernoulli(logits=theta[1] * X).log_prob(z), dist.Normal(theta[2] * X, 1.0).log_prob(w)


@pytest.mark.parametrize("vectorized", [False, True])
def test_gradient_is_the_sum_of_score_and_pathwise_parts(vectorized, theta, run_once):
    runs = (
        [trace_vectorized(ModelGuideCall(model, guide, (theta,)), 2, 1, {})]
        if vectorized
        else [run_once(model, guide, theta) for _ in range(2)]
    )
    objective = elbo_objective(runs, Estimators("none", 2), 2, vectorized)
    z, w = (torch.cat([run.guide[name].value.reshape(-1, 3) for run in runs]) for name in "zw")
    log_p, log_q_z, log_q_w = by_hand(theta, z, w)
    torch.testing.assert_close(objective.bound, (log_p - log_q_z - log_q_w).sum().detach() / 2)
    log_p_of_z = log_p - dist.Normal(w, 1.0).log_prob(X)  # w does not come from z in the guide
    signal = (log_p_of_z - log_q_z).detach()
    expected = (log_q_w - log_p - signal * log_q_z).sum() / 2
    gradients = (torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in (objective.loss, expected))
    torch.testing.assert_close(*gradients)


def test_extra_particles_do_not_count_in_the_bound(theta, run_once):
    runs = [run_once(model, guide, theta) for _ in range(3)]
    log_p, log_q, entropy = sum_terms(runs[:2], None)
    objective = elbo_objective(runs, Estimators("none", 2), 2, vectorized=False)
    torch.testing.assert_close(objective.bound, (log_p - log_q).detach() / 2)
    assert entropy.requires_grad
    assert not log_q.requires_grad


def test_bound_without_latent_variables_is_the_evidence(run_once):
    def observed():
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    objective = elbo_objective([run_once(observed, lambda: None)], Estimators(None, 1), 1, vectorized=False)
    assert objective.bound.item() == pytest.approx(-0.9189385)


def test_total_sums_tensors_of_any_shape():
    assert total([torch.ones(2, 3), torch.tensor(0.5)]) == 6.5
    assert total([torch.ones(2, 3), torch.ones(2)], length=1) == 4
    assert total([]) == 0


@pytest.mark.parametrize("batch", [(), (3,), (2, 1)])
def test_only_particles_with_the_site_are_selected(batch):
    advantage = torch.arange(3.0).reshape(3, *(1 for _ in batch)).expand(3, *batch)
    drawn = torch.tensor([True, False, True, True]).reshape(4, *(1 for _ in batch)).expand(4, *batch)
    found = select_particles(advantage, drawn)  # the fourth particle is an extra one
    assert set(found.tolist()) == {0.0, 2.0}
    assert len(found) == 2 * advantage[0].numel()
    assert len(select_particles(advantage, None)) == advantage.numel()
