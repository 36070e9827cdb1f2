"""An estimator for each site, made when the site is first seen."""

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


class TestTheEstimatorOfASite:
    def test_is_made_once(self):
        estimators = Estimators(None, 2)
        assert estimators.of("z") is estimators.of("z")
        assert estimators.of("z") is not estimators.of("y")

    def test_is_the_one_named_for_the_site_or_the_usual_one(self):
        estimators = Estimators({"z": "moving_average"}, 2)
        assert type(estimators.of("z").baseline) is MovingAverageBaseline
        assert type(estimators.of("y").baseline) is LeaveOneOutBaseline

    def test_follows_what_the_site_asks_for(self):
        options = {"nn_baseline": nn.Linear(1, 1), "use_decaying_avg_baseline": True}
        assert type(Estimators(None, 2).of("z", options).baseline) is SumBaseline

    @pytest.mark.parametrize("training", [True, False])
    def test_is_in_the_mode_of_all_others(self, training):
        assert Estimators(None, 2).train(training).of("z").training is training

    def test_has_a_copy_of_a_baseline(self):
        baseline = MovingAverageBaseline()
        elbo = BlackBoxELBO(baseline=baseline)
        elbo.loss_and_grads(bits, guide_of(), X)
        assert elbo.estimators.of("z").baseline.mean.weight > 0
        assert baseline.mean.weight == 0

    def test_of_a_single_site_is_the_given_object_itself(self):
        baseline = MovingAverageBaseline()
        assert Estimators({"z": baseline}, 1).of("z").baseline is baseline

    def test_is_made_before_the_site_is_met_to_load_what_it_has_learned(self):
        elbo, again = BlackBoxELBO(), BlackBoxELBO()
        elbo.loss_and_grads(bits, guide_of(), X)
        again.load_state_dict(elbo.state_dict())
        learned = again.estimators.of("z").baseline.mean.total
        assert learned == elbo.estimators.of("z").baseline.mean.total
        assert learned != 0

    @pytest.mark.parametrize("name", ["a.keys", "keys", "training", "höhe 3/4", "site z"])
    def test_has_a_key_for_any_name(self, name):
        estimators, again = Estimators("moving_average", 1), Estimators("moving_average", 1)
        estimators.of(name)
        again.load_state_dict(estimators.state_dict())
        assert list(again.sites) == [site_key(name)]


@pytest.mark.parametrize(
    ("baseline", "count"),
    [("optimal", 0), (ControlVariate(estimate=7), 7), ({"z": ControlVariate(estimate=7), "y": "none"}, 7), (None, 0)],
    ids=str,
)
def test_separate_samples_are_drawn_if_a_baseline_wants_them(baseline, count):
    assert Estimators(baseline, 2).num_extra_samples == count


class TestANetworksInput:
    @pytest.mark.parametrize("vectorized", [False, True])
    @pytest.mark.parametrize("shape", [(4, 1), (1,)], ids=["of each element", "of all"])
    def test_may_broadcast_over_the_batch(self, shape, vectorized):
        net = nn.Linear(1, 1)
        guide = guide_of(nn_baseline=net, nn_baseline_input=torch.ones(shape))
        BlackBoxELBO(2, vectorize_particles=vectorized).loss_and_grads(bits, guide, X)
        assert net.weight.grad.abs().sum() > 0

    def test_is_refused_if_it_fits_no_batch(self):
        guide = guide_of(nn_baseline=nn.Linear(1, 1), nn_baseline_input=torch.ones(3, 1))
        with pytest.raises(ValueError, match=r"at site 'z' has shape \(3, 1\), which does not fit the batch \(4,\)"):
            BlackBoxELBO().loss_and_grads(bits, guide, X)

    def test_is_asked_for(self):
        with pytest.raises(ValueError, match="site 'z' needs an input for its network"):
            BlackBoxELBO(baseline=LearnedBaseline(nn.Linear(1, 1))).loss_and_grads(bits, guide_of(), X)


class TestBadInput:
    @pytest.mark.parametrize(
        "wrap", [lambda part: part, lambda part: SumBaseline(ConstantBaseline(1.0), part)], ids=["alone", "in sums"]
    )
    def test_one_baseline_for_two_sites(self, wrap):
        shared = MovingAverageBaseline()
        with pytest.raises(ValueError, match="sites 'z' and 'y' have the same MovingAverageBaseline"):
            BlackBoxELBO(baseline={"z": wrap(shared), "y": wrap(shared)})

    def test_a_network_that_does_not_take_its_input(self):
        guide = guide_of(nn_baseline=nn.Linear(2, 1), nn_baseline_input=torch.ones(4, 3))
        with pytest.raises(ValueError, match=r"the baseline of site 'z': .*shapes cannot be multiplied"):
            BlackBoxELBO().loss_and_grads(bits, guide, X)

    def test_a_baseline_for_a_site_that_there_is_not(self):
        elbo = BlackBoxELBO(baseline={"y": "none"})
        with pytest.raises(
            ValueError, match=r"baseline for 'y', but the guide has no site .* the sites that do are 'z'"
        ):
            elbo.loss_and_grads(bits, guide_of(), X)

    def test_a_learned_baseline_without_a_network(self):
        with pytest.raises(ValueError, match="site 'z': a learned baseline needs a network"):
            BlackBoxELBO(baseline="learned").loss_and_grads(bits, guide_of(), X)
