"""What the estimators give on average, over all that may be drawn, is the gradient of the exact bound."""

import copy

import pytest
import torch
from torch import nn

from zoo.gradients import BASELINES, Baseline, Reinforce, RunningStd, make_baseline
from zoo.gradients.estimators import (
    Evaluation,
    VIMCOBaseline,
    elbo_objective,
    iwae_objective,
    local_signals,
)
from zoo.inference.sbn import exact_elbo, exact_iwae_bound

PARTICLES = 2
NETWORKS = {
    "one layer": ((2,), {}),
    "two layers": ((2, 1), {}),
    "three layers": ((1, 1, 1), {}),
    "nonlinear": ((1, 2), {"hidden": (3,)}),
}

pytestmark = pytest.mark.usefixtures("without_type_checks")  # for speed


@pytest.fixture(params=NETWORKS)
def network(request, make_network):
    layers, options = NETWORKS[request.param]
    return make_network(*layers, **options)


@pytest.fixture
def mean_gradient(x, every_posterior, gradient):
    """The mean gradient of a loss over all outcomes; estimators are in the same state in each."""

    def average(network, estimators, loss, particles=PARTICLES):
        estimators = nn.ModuleList(estimators)
        state, total = copy.deepcopy(estimators.state_dict()), 0
        for probability, posterior in every_posterior(network, x, particles):
            estimators.load_state_dict(state)
            value = loss(posterior, network.log_joint(x, posterior.units), estimators)
            total = total + probability.detach() * gradient(value, network)
        return total

    return average


def used(baseline, inputs=4):
    """A baseline by name that has already learned something."""
    torch.manual_seed(1)
    made = make_baseline(baseline, make_net=lambda: nn.Linear(inputs, 1).double(), sample_dim=0, decay=0.8).double()
    made.update(torch.tensor([[-3.0], [-4.0]], dtype=torch.double), None)
    return made


def each_layer(network, name):
    inputs = [network.mean.numel(), *network.layers[:-1]]
    return [Reinforce(used(name, units), maximize=True) for units in inputs]


def evaluation(posterior, log_joint):
    return Evaluation(posterior.inputs, posterior.log_q, log_joint)


def elbo_loss(posterior, log_joint, estimators, local=True):
    objective = elbo_objective(evaluation(posterior, log_joint), estimators, local)
    return objective.pathwise + objective.score


def multi_sample_loss(posterior, log_joint, estimators):
    objective = iwae_objective(evaluation(posterior, log_joint), estimators[0])
    return objective.pathwise + objective.score


def deviation(one, other):
    return (one - other).abs().max().item()


@pytest.fixture
def elbo_gradient(network, x, gradient):
    exact = gradient(-exact_elbo(network, x).sum(), network)
    assert exact.abs().max() > 0.1
    return exact


class TestElbo:
    @pytest.mark.parametrize("local", [True, False], ids=["local", "whole"])
    @pytest.mark.parametrize("name", BASELINES)
    def test_every_estimator_is_unbiased(self, name, local, network, mean_gradient, elbo_gradient):
        estimators = each_layer(network, name)
        mean = mean_gradient(network, estimators, lambda *drawn: elbo_loss(*drawn, local=local))
        assert deviation(mean, elbo_gradient) < 1e-12

    def test_single_particle_estimator_is_unbiased(self, network, mean_gradient, elbo_gradient):
        mean = mean_gradient(network, each_layer(network, "learned_moving_average"), elbo_loss, particles=1)
        assert deviation(mean, elbo_gradient) < 1e-12

    def test_running_scale_divides_inference_gradient_by_known_factor(self, network, mean_gradient, elbo_gradient):
        scale = RunningStd(0.8)
        scale.update(torch.tensor([-7.0, 1.0, 5.0]))
        estimators = each_layer(network, "learned_moving_average")
        for estimator in estimators:
            estimator.scale = copy.deepcopy(scale)
        mean = mean_gradient(network, estimators, elbo_loss)
        inference = sum(weight.numel() for weight in network.up.parameters())
        begin = network.prior_logits.numel()  # a module's own parameters come before its submodules'
        expected = elbo_gradient.clone()
        expected[begin : begin + inference] /= scale.value
        assert scale.value > 2
        assert deviation(mean, expected) < 1e-6  # the scale itself is kept in single precision


class TestMultiSampleBound:
    @pytest.fixture
    def exact(self, network, x, gradient):
        return gradient(-exact_iwae_bound(network, x, PARTICLES).sum(), network)

    def test_vimco_is_unbiased(self, network, mean_gradient, exact):
        estimators = [Reinforce(VIMCOBaseline(dim=0), maximize=True)]
        assert deviation(mean_gradient(network, estimators, multi_sample_loss), exact) < 1e-12

    def test_iwae_objective_without_baseline_is_unbiased(self, network, mean_gradient, exact):
        assert deviation(mean_gradient(network, [Reinforce(maximize=True)], multi_sample_loss), exact) < 1e-12

    def test_iwae_gradient_differs_from_elbo_gradient(self, exact, elbo_gradient):
        assert deviation(exact, elbo_gradient) > 1e-2


def with_a_term_too_few(posterior, log_joint, estimators):
    """Credits each layer with what lies above it alone, not with how well it explains the layer below."""
    signals = local_signals(evaluation(posterior, [torch.zeros_like(log_joint[0]), *log_joint[1:]]))
    pairs = zip(estimators, posterior.log_q, signals, strict=True)
    return -sum(log_joint).mean() + sum(estimator(log_q, signal).loss.mean() for estimator, log_q, signal in pairs)


def with_the_signal_of_the_layer_above(posterior, log_joint, estimators):
    signals = local_signals(evaluation(posterior, log_joint))
    signals = [*signals[1:], signals[-1] * 0]
    pairs = zip(estimators, posterior.log_q, signals, strict=True)
    return -sum(log_joint).mean() + sum(estimator(log_q, signal).loss.mean() for estimator, log_q, signal in pairs)


def without_the_entropy(posterior, log_joint, estimators):
    return elbo_loss(posterior._replace(log_q=[0.5 * log_q for log_q in posterior.log_q]), log_joint, estimators)


class MeanOfAllParticles(Baseline):
    def predict(self, signal, context, mask):
        return signal.mean(0, keepdim=True)


class BoundOfAllParticles(Baseline):
    def predict(self, signal, context, mask):
        return signal / 2


class TestThePlantedMistakeIsFound:
    """The same check must fail here, or it would show nothing."""

    @pytest.mark.parametrize("loss", [with_a_term_too_few, with_the_signal_of_the_layer_above, without_the_entropy])
    def test_mistakes_in_signals_are_detected(self, loss, network, mean_gradient, elbo_gradient):
        assert deviation(mean_gradient(network, each_layer(network, "none"), loss), elbo_gradient) > 1e-3

    def test_baseline_dependent_on_own_sample_is_detected(self, network, mean_gradient, elbo_gradient):
        estimators = [Reinforce(MeanOfAllParticles(), maximize=True) for _ in network.layers]
        assert deviation(mean_gradient(network, estimators, elbo_loss), elbo_gradient) > 1e-3

    def test_iwae_baseline_dependent_on_own_sample_is_detected(self, network, x, mean_gradient, gradient):
        exact = gradient(-exact_iwae_bound(network, x, PARTICLES).sum(), network)
        mean = mean_gradient(network, [Reinforce(BoundOfAllParticles(), maximize=True)], multi_sample_loss)
        assert deviation(mean, exact) > 1e-3

    def test_context_with_own_units_is_detected(self, make_network, x, mean_gradient, gradient):
        network = make_network(2, 2)
        estimators = [Reinforce(used("learned", 2), maximize=True) for _ in network.layers]
        exact = gradient(-exact_elbo(network, x).sum(), network)
        peeking = mean_gradient(
            network, estimators, lambda p, *rest: elbo_loss(p._replace(inputs=[2 * h - 1 for h in p.units]), *rest), 1
        )
        assert deviation(peeking, exact) > 1e-3


class TestVariance:
    """Of one particle's gradient in the inference network, summed over its weights, by enumeration."""

    @pytest.fixture
    def variance(self, x, every_posterior, gradient):
        def measure(network, loss):
            moments = [0.0, 0.0]
            for probability, posterior in every_posterior(network, x, 1):
                log_joint = network.log_joint(x, posterior.units)
                g = gradient(loss(posterior, log_joint, each_layer(network, "none")), network)
                moments = [moments[0] + probability.detach() * g, moments[1] + probability.detach() * g**2]
            return (moments[1] - moments[0] ** 2).sum().item()

        return measure

    def test_local_signals_reduce_variance(self, make_network, variance):
        network = make_network(2, 2, 2)
        local, whole = (
            variance(network, lambda *drawn, local=local: elbo_loss(*drawn, local=local)) for local in (True, False)
        )
        assert local < 0.9 * whole


def test_objective_returns_bound_per_image(network, x, every_posterior):
    images = x.expand(3, -1)
    posterior = network.infer(images, lambda layer, logits: torch.ones(2, 3, network.layers[layer]).double())
    objective = elbo_objective(
        evaluation(posterior, network.log_joint(images, posterior.units)), each_layer(network, "none")
    )
    by_hand = sum(network.log_joint(images, posterior.units)) - sum(posterior.log_q)
    torch.testing.assert_close(objective.bound, by_hand.mean(0))
    assert not objective.bound.requires_grad
