"""The score of a value that carries its own path to the parameters is 0 or wrong, and refused where it is seen."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions.transforms import TanhTransform

from zoo.gradients import LeaveOneOutBaseline, Reinforce, score_function_loss
from zoo.gradients._rsample import is_reparameterized
from zoo.gradients.estimators import VIMCOBaseline, iwae_bound


def leaf(*shape):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.5).requires_grad_()


LAWS = {
    "normal": lambda: dist.Normal(leaf(3), leaf(3)),
    "normal with a fixed scale": lambda: dist.Normal(leaf(3), 1.0),
    "normal of which the scale alone is learned": lambda: dist.Normal(1.0, leaf(3)),
    "cauchy of which the scale alone is learned": lambda: dist.Cauchy(1.0, leaf(3)),
    "half-normal": lambda: dist.HalfNormal(leaf(3).exp()),
    "half-cauchy": lambda: dist.HalfCauchy(leaf(3)),
    "normal that broadcasts": lambda: dist.Normal(leaf(1), leaf(4, 3)),
    "normal of networks": lambda: dist.Normal(nn.Linear(2, 3)(torch.ones(2)), nn.Linear(2, 3)(torch.ones(2)).exp()),
    "vector of normals": lambda: dist.Normal(leaf(3), leaf(3)).to_event(1),
    "log-normal": lambda: dist.LogNormal(leaf(3), leaf(3)),
    "squashed normal": lambda: dist.TransformedDistribution(dist.Normal(leaf(3), leaf(3)), [TanhTransform()]),
    "remembered": lambda: dist.TransformedDistribution(dist.Normal(leaf(3), leaf(3)), [TanhTransform(cache_size=1)]),
    "multivariate": lambda: dist.MultivariateNormal(leaf(3), scale_tril=torch.eye(3).requires_grad_()),
    "laplace": lambda: dist.Laplace(leaf(3), leaf(3)),
    "cauchy": lambda: dist.Cauchy(leaf(3), leaf(3)),
    "student": lambda: dist.StudentT(leaf(3), leaf(3), leaf(3)),
    "exponential": lambda: dist.Exponential(leaf(3)),
    "gamma": lambda: dist.Gamma(leaf(3), leaf(3)),
    "beta": lambda: dist.Beta(leaf(3), leaf(3)),
    "dirichlet": lambda: dist.Dirichlet(leaf(3)),
}


@pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)
def test_values_of_rsample_and_sample_are_distinguished(make):
    law = make()
    value = law.rsample((4,))
    assert is_reparameterized(law.log_prob(value))
    assert is_reparameterized(law.log_prob(value).flatten(1).sum(-1) if law.batch_shape else law.log_prob(value))
    assert not is_reparameterized(law.log_prob(value.detach()))
    assert not is_reparameterized(law.log_prob(law.sample((4,))))


@pytest.mark.parametrize(
    "call",
    [score_function_loss, Reinforce(), Reinforce(LeaveOneOutBaseline(0), maximize=True), Reinforce("moving_average")],
)
def test_estimators_raise_for_values_of_rsample(call):
    law = dist.Normal(leaf(3), leaf(3))
    value = law.rsample((4,))
    with pytest.raises(ValueError, match=r"log_prob is that of a value from rsample\(\).*; use sample\(\), or detach"):
        call(law.log_prob(value), value.square())
    call(law.log_prob(value.detach()), value.square())


def test_iwae_bound_raises_for_values_of_rsample():
    law = dist.Normal(leaf(1), 1.0)
    value = law.rsample((4,))
    log_weights = -value.square() - law.log_prob(value)
    with pytest.raises(ValueError, match=r"use sample\(\)"):
        Reinforce(VIMCOBaseline(0))(law.log_prob(value), iwae_bound(log_weights), log_weights)


def test_networks_with_skip_connections_and_noisy_inputs_are_not_detected_as_rsample():
    features, layer = leaf(4, 3), nn.Linear(3, 3)
    delta = (features + layer(features).relu()) - features
    noisy = dist.Normal(leaf(3), 1.0).rsample((4,))
    hybrid = dist.Normal(noisy + delta, layer(noisy).exp())  # given a variable whose gradient is pathwise
    action = hybrid.sample()
    assert not is_reparameterized(hybrid.log_prob(action).sum(-1))
    assert not is_reparameterized(dist.Poisson(dist.Gamma(leaf(3), 1.0).rsample()).log_prob(torch.ones(3)))
    assert not is_reparameterized(dist.Gamma(leaf(3), 1.0).log_prob(dist.Gamma(leaf(3) * 2, 1.0).sample()))
    assert not is_reparameterized(dist.Categorical(logits=delta).log_prob(torch.zeros(4)))


def test_shared_features_of_location_and_scale_are_not_detected_as_rsample():
    scale, data = leaf(3), torch.ones(3)
    product = data * scale
    assert not is_reparameterized(dist.Normal(2.0 * scale, scale).log_prob(data))
    assert not is_reparameterized(dist.Cauchy(2.0 * scale, scale).log_prob(data))
    assert not is_reparameterized(dist.Normal(2.0 * scale, leaf(3)).log_prob(data))
    assert not is_reparameterized(dist.Categorical(logits=product / product.norm()).log_prob(torch.tensor(0)))
    assert not is_reparameterized(dist.Categorical(logits=(product - 1.0) / scale).log_prob(torch.tensor(0)))
    assert not is_reparameterized(dist.Bernoulli(logits=((product - 1.0) / scale).log1p()).log_prob(data))


def test_log_prob_without_graph_is_not_reparameterized():
    assert not is_reparameterized(torch.zeros(3))
    assert not is_reparameterized(torch.zeros(3, requires_grad=True))
