"""Estimators of sites, created when a site is first seen."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from zoo.gradients import ConstantBaseline, LearnedBaseline, LeaveOneOutBaseline, MovingAverageBaseline, SumBaseline
from zoo.gradients.control_variates import ControlVariate
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._estimators import Estimators, site_key

X = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)


def bits(x, **options):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(logits=0.3 * x), infer={"baseline": options})
        pyro.sample("x", dist.Bernoulli(logits=2 * z - 1), obs=x)


def guide_of(**options):
    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=slope * x), infer={"baseline": options})

    return guide


class TestSiteEstimator:
    def test_estimator_is_created_once(self):
        estimators = Estimators(None, 2)
        assert estimators.of("z") is estimators.of("z")
        assert estimators.of("z") is not estimators.of("y")

    def test_baseline_is_that_of_the_site_or_the_default(self):
        estimators = Estimators({"z": "moving_average"}, 2)
        assert type(estimators.of("z").baseline) is MovingAverageBaseline
        assert type(estimators.of("y").baseline) is LeaveOneOutBaseline

    def test_baseline_follows_the_options_of_the_site(self):
        options = {"nn_baseline": nn.Linear(1, 1), "use_decaying_avg_baseline": True}
        assert type(Estimators(None, 2).of("z", options).baseline) is SumBaseline

    @pytest.mark.parametrize("training", [True, False])
    def test_new_estimator_has_the_current_mode(self, training):
        assert Estimators(None, 2).train(training).of("z").training is training

    def test_shared_baseline_is_copied(self):
        baseline = MovingAverageBaseline()
        elbo = BlackBoxELBO(baseline=baseline)
        elbo.loss_and_grads(bits, guide_of(), X)
        assert elbo.estimators.of("z").baseline.mean.weight > 0
        assert baseline.mean.weight == 0

    def test_baseline_of_a_single_site_is_not_copied(self):
        baseline = MovingAverageBaseline()
        assert Estimators({"z": baseline}, 1).of("z").baseline is baseline

    def test_estimators_are_created_when_a_state_is_loaded(self):
        elbo, again = BlackBoxELBO(), BlackBoxELBO()
        elbo.loss_and_grads(bits, guide_of(), X)
        again.load_state_dict(elbo.state_dict())
        learned = again.estimators.of("z").baseline.mean.total
        assert learned == elbo.estimators.of("z").baseline.mean.total
        assert learned != 0

    @pytest.mark.parametrize("name", ["a.keys", "keys", "training", "höhe 3/4", "site z"])
    def test_any_site_name_has_a_key(self, name):
        estimators, again = Estimators("moving_average", 1), Estimators("moving_average", 1)
        estimators.of(name)
        again.load_state_dict(estimators.state_dict())
        assert list(again.sites) == [site_key(name)]


@pytest.mark.parametrize(
    ("baseline", "count"),
    [
        ("optimal", 0),
        (ControlVariate(num_extra_samples=7), 7),
        ({"z": ControlVariate(num_extra_samples=7), "y": "none"}, 7),
        (None, 0),
    ],
    ids=str,
)
def test_num_extra_samples_is_that_of_the_baselines(baseline, count):
    assert Estimators(baseline, 2).num_extra_samples == count


class TestNetworkInput:
    @pytest.mark.parametrize("vectorized", [False, True])
    @pytest.mark.parametrize("shape", [(4, 1), (1,)], ids=["of each element", "of all"])
    def test_input_broadcasts_over_the_batch(self, shape, vectorized):
        net = nn.Linear(1, 1)
        guide = guide_of(nn_baseline=net, nn_baseline_input=torch.ones(shape))
        BlackBoxELBO(2, vectorize_particles=vectorized).loss_and_grads(bits, guide, X)
        assert net.weight.grad.abs().sum() > 0

    def test_input_of_wrong_shape_raises(self):
        guide = guide_of(nn_baseline=nn.Linear(1, 1), nn_baseline_input=torch.ones(3, 1))
        with pytest.raises(ValueError, match=r"at site 'z' has shape \(3, 1\), which does not fit the batch \(4,\)"):
            BlackBoxELBO().loss_and_grads(bits, guide, X)

    def test_missing_input_raises(self):
        with pytest.raises(ValueError, match="site 'z' needs an input for its network"):
            BlackBoxELBO(baseline=LearnedBaseline(nn.Linear(1, 1))).loss_and_grads(bits, guide_of(), X)


class TestBadInput:
    @pytest.mark.parametrize(
        "wrap", [lambda part: part, lambda part: SumBaseline(ConstantBaseline(1.0), part)], ids=["alone", "in sums"]
    )
    def test_shared_baseline_raises(self, wrap):
        shared = MovingAverageBaseline()
        with pytest.raises(ValueError, match="sites 'z' and 'y' have the same MovingAverageBaseline"):
            BlackBoxELBO(baseline={"z": wrap(shared), "y": wrap(shared)})

    def test_network_with_unsuitable_input_raises(self):
        guide = guide_of(nn_baseline=nn.Linear(2, 1), nn_baseline_input=torch.ones(4, 3))
        with pytest.raises(ValueError, match=r"the baseline of site 'z': .*shapes cannot be multiplied"):
            BlackBoxELBO().loss_and_grads(bits, guide, X)

    def test_baseline_for_unknown_site_raises(self):
        elbo = BlackBoxELBO(baseline={"y": "none"})
        with pytest.raises(
            ValueError, match=r"baseline for 'y', but the guide has no site .* the sites that do are 'z'"
        ):
            elbo.loss_and_grads(bits, guide_of(), X)

    def test_learned_baseline_without_network_raises(self):
        with pytest.raises(ValueError, match="site 'z': a learned baseline needs a network"):
            BlackBoxELBO(baseline="learned").loss_and_grads(bits, guide_of(), X)
