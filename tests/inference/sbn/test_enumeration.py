import pytest
import torch

from zoo.gradients.estimators import enumerate_states
from zoo.inference.sbn import exact_elbo, exact_iwae_bound, log_evidence

NETWORKS = [((3,), {}), ((3, 2), {}), ((2, 2, 2), {}), ((2, 2), {"hidden": (3,), "activation": "leaky_relu"})]


@pytest.fixture(params=NETWORKS, ids=["one layer", "two layers", "three layers", "nonlinear"])
def network(request, make_network):
    layers, options = request.param
    return make_network(*layers, **options)


def test_states_are_enumerated_once():
    states = torch.cat(enumerate_states([2, 3]), dim=-1).squeeze(1)
    assert states.shape == (32, 5)
    assert len(states.unique(dim=0)) == 32


def test_evidence_sums_to_one_over_all_images(network):
    images = torch.cat(enumerate_states([4])).squeeze(1).double()
    assert log_evidence(network, images).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_evidence_of_one_layer_equals_formula(make_network, x):
    network = make_network(1)
    bias, weight = network.down[0][0].bias, network.down[0][0].weight.squeeze(1)
    prior = network.prior_logits.sigmoid()
    likelihood = [torch.where(x == 1, p, 1 - p).prod() for p in ((bias + s * weight).sigmoid() for s in (-1, 1))]
    by_hand = (1 - prior) * likelihood[0] + prior * likelihood[1]
    torch.testing.assert_close(log_evidence(network, x).exp(), by_hand)


def test_exact_elbo_equals_mean_over_all_posterior_samples(network, x, every_posterior):
    by_hand = torch.zeros(1, dtype=torch.double)
    for probability, posterior in every_posterior(network, x, 1):
        joint = torch.stack(network.log_joint(x, posterior.units)).sum(0)
        by_hand = by_hand + probability * (joint - torch.stack(posterior.log_q).sum(0)).squeeze(0)
    torch.testing.assert_close(exact_elbo(network, x), by_hand)


class TestBounds:
    def test_more_particles_tighten_iwae_bound(self, network, x):
        elbo, double, evidence = (
            exact_elbo(network, x),
            exact_iwae_bound(network, x, 2),
            log_evidence(network, x),
        )
        assert elbo < double - 1e-3
        assert double < evidence - 1e-3

    def test_iwae_bound_with_one_particle_equals_elbo(self, network, x):
        torch.testing.assert_close(exact_iwae_bound(network, x, 1), exact_elbo(network, x))

    def test_elbo_equals_evidence_with_exact_posterior(self, make_network, x):
        network = make_network(1)
        with torch.no_grad():
            one = network.down[0][0].bias + network.down[0][0].weight.squeeze(1)
            other = network.down[0][0].bias - network.down[0][0].weight.squeeze(1)
            odds = torch.where(x == 1, one.sigmoid() / other.sigmoid(), one.neg().sigmoid() / other.neg().sigmoid())
            network.up[0][0].weight.zero_()
            network.up[0][0].bias.copy_(network.prior_logits + odds.prod().log())
        torch.testing.assert_close(exact_elbo(network, x), log_evidence(network, x))


def test_too_many_units_raise(make_network, x):
    with pytest.raises(ValueError, match="13 stochastic units have too many states to enumerate; the maximum is 12"):
        exact_elbo(make_network(13), x)
    with pytest.raises(ValueError, match="3 particles have too many states"):
        exact_iwae_bound(make_network(5), x, 3)
