import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedBeta, NonreparameterizedNormal
from pyro.infer import SVI
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch import nn
from torch.distributions import constraints

from zoo.gradients import Learned, MovingAverage, RunningScale
from zoo.gradients.optimal_scaling import OptimalScaling
from zoo.inference.black_box import BlackBoxELBO

quiet = pytest.mark.filterwarnings("ignore:site .* stands outside every plate")


def coins(flips):
    fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
    with pyro.plate("flips", len(flips)):
        pyro.sample("flip", dist.Bernoulli(fairness), obs=flips)


def beta_guide(flips):
    a, b = (pyro.param(name, torch.tensor(12.0), constraint=constraints.positive) for name in "ab")
    pyro.sample("fairness", NonreparameterizedBeta(a, b))


def bits(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(logits=torch.zeros(len(x), 3)).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=2 * z.sum(-1) - 3), obs=x)


def bits_guide(x):
    weight = pyro.param("weight", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=x.unsqueeze(-1) * weight).to_event(1))


def informed_guide(net):
    def guide(x):
        weight = pyro.param("weight", torch.zeros(3))
        more = {"baseline": {"nn_baseline": net, "nn_baseline_input": x.unsqueeze(-1)}}
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=x.unsqueeze(-1) * weight).to_event(1), infer=more)

    return guide


X = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)


@quiet
class TestSVI:
    @pytest.mark.parametrize(
        "options",
        [
            {"num_particles": 4},
            {"num_particles": 4, "vectorize_particles": True},
            {"num_particles": 4, "vectorize_particles": True, "baseline": "optimal"},
            {"num_particles": 4, "baseline": OptimalScaling("factor", estimate=4)},
        ],
        ids=str,
    )
    def test_finds_the_posterior_of_a_coin(self, options):
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        svi = SVI(coins, beta_guide, pyro.optim.Adam({"lr": 0.05}), BlackBoxELBO(**options))
        for _ in range(150):
            svi.step(flips)
        assert pyro.param("a").item() == pytest.approx(16, abs=1)
        assert pyro.param("b").item() == pytest.approx(14, abs=1)

    def test_gives_the_negative_elbo(self):
        svi = SVI(coins, beta_guide, pyro.optim.Adam({"lr": 0.0}), BlackBoxELBO(2000, vectorize_particles=True))
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        theirs = SVI(
            coins, beta_guide, pyro.optim.Adam({"lr": 0.0}), pyro.infer.Trace_ELBO(2000, 1, vectorize_particles=True)
        )
        expected = theirs.evaluate_loss(flips)
        assert svi.step(flips) == pytest.approx(expected, abs=0.1)
        assert svi.evaluate_loss(flips) == pytest.approx(expected, abs=0.1)

    def test_a_smaller_last_batch_changes_no_shapes(self):
        elbo = BlackBoxELBO(baseline="moving_average")
        svi = SVI(bits, bits_guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        for batch in (X, X[:1], X[:3], X):
            svi.step(batch)
        assert elbo.estimators.sites["site z"].baseline.mean.value.ndim == 0

    def test_trains_the_network_of_a_baseline(self):
        net = nn.Linear(1, 1)
        before = net.weight.detach().clone()
        svi = SVI(bits, informed_guide(net), pyro.optim.Adam({"lr": 0.1}), BlackBoxELBO(baseline="learned"))
        svi.step(X)
        assert not torch.equal(net.weight, before)
        assert net.weight.grad.abs().sum() == 0  # as SVI leaves it

    def test_a_loss_alone_teaches_nothing(self):
        elbo = BlackBoxELBO(baseline="moving_average")
        svi = SVI(bits, bits_guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        svi.step(X)
        state = {name: x.clone() for name, x in elbo.state_dict().items()}
        svi.evaluate_loss(X)
        assert all(torch.equal(x, state[name]) for name, x in elbo.state_dict().items())


class TestTheModule:
    def test_has_the_networks_of_baselines_among_its_parameters(self):
        net = nn.Linear(1, 1)
        elbo = BlackBoxELBO(2, baseline={"z": Learned(net)})(bits, informed_guide(net))
        elbo(X).backward()
        assert {id(p) for p in net.parameters()} <= {id(p) for p in elbo.elbo.parameters()}
        assert net.weight.grad.abs().sum() > 0

    def test_gives_the_negative_elbo_with_a_gradient(self):
        elbo = BlackBoxELBO(2)
        loss = elbo.differentiable_loss(bits, bits_guide, X)
        torch.autograd.backward(loss)
        assert loss.item() > 0
        assert pyro.get_param_store()._params["weight"].grad.abs().sum() > 0

    def test_each_site_has_a_copy_of_a_baseline_and_of_a_scale(self):
        baseline, scale = MovingAverage(), RunningScale()
        elbo = BlackBoxELBO(baseline=baseline, scale=scale)
        elbo.loss_and_grads(bits, bits_guide, X)
        reinforce = elbo.estimators.sites["site z"]
        assert reinforce.baseline is not baseline
        assert reinforce.baseline.mean.weight > 0
        assert baseline.mean.weight == 0
        assert scale.mean.weight == 0
        assert reinforce.scale.mean.weight > 0

    def test_what_baselines_have_learned_is_kept_and_loaded_before_their_sites_are_met(self):
        elbo = BlackBoxELBO()
        elbo.loss_and_grads(bits, bits_guide, X)
        again = BlackBoxELBO()
        again.load_state_dict(elbo.state_dict())
        assert (
            again.estimators.sites["site z"].baseline.mean.value == elbo.estimators.sites["site z"].baseline.mean.value
        )
        assert again.estimators.sites["site z"].baseline.mean.value != 0

    @pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
    @pytest.mark.parametrize("vectorized", [False, True])
    def test_takes_an_automatic_guide(self, auto, vectorized):
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        svi = SVI(coins, auto(coins), pyro.optim.Adam({"lr": 0.01}), BlackBoxELBO(2, vectorize_particles=vectorized))
        assert svi.step(flips) > 0

    def test_dots_in_names_are_no_matter(self):
        def model():
            pyro.sample("a.keys", dist.Bernoulli(0.5))

        def guide():
            with pyro.plate("one", 1):
                pass
            pyro.sample("a.keys", dist.Bernoulli(logits=pyro.param("p", torch.tensor(0.0))))

        with pytest.warns(UserWarning, match="stands outside every plate"):
            BlackBoxELBO().loss_and_grads(model, guide)


class TestWhatIsSaid:
    def test_one_line_says_how_each_gradient_is_estimated(self, caplog):
        def model(x):
            bits(x)
            pyro.sample("w", dist.Normal(0.0, 1.0))

        def guide(x):
            bits_guide(x)
            pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

        elbo = BlackBoxELBO()
        with caplog.at_level(logging.INFO, logger="zoo.inference.black_box"):
            elbo.loss_and_grads(model, guide, X)
            elbo.loss_and_grads(model, guide, X)
        (line,) = caplog.messages
        assert "site 'z' (Bernoulli) by the score function" in line
        assert "site 'w' (Normal) pathwise" in line

    def test_a_site_outside_every_plate_costs_something_and_that_is_said_once(self, recwarn):
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        elbo = BlackBoxELBO(3, vectorize_particles=True)
        with pytest.warns(UserWarning, match=r"site 'fairness'.*all 36 log-probabilities"):
            elbo.loss_and_grads(coins, beta_guide, flips)
        elbo.loss_and_grads(coins, beta_guide, flips)
        assert not recwarn.list

    def test_a_path_that_steers_is_warned_of(self):
        def model():
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(1.0 if w > 0 else -1.0, 1.0), obs=torch.tensor(0.5))

        def guide():
            pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

        with pytest.warns(UserWarning, match="'w'.*steer the program"):
            BlackBoxELBO().loss_and_grads(model, guide)


def normal_guide(name="z", kind=NonreparameterizedNormal, **more):
    def guide(*args):
        with pyro.plate("data", 2):
            pyro.sample(name, kind(pyro.param("loc", torch.zeros(2)), 1.0), **more)

    return guide


def normal_model(data=None, prior=None):
    def model(*args):
        with pyro.plate("data", 2):
            z = pyro.sample("z", prior or dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(2) if data is None else data)

    return model


class TestBadInput:
    @pytest.mark.parametrize(
        ("model", "guide", "sentence"),
        [
            (normal_model(), normal_guide("y"), "the guide samples site 'y', which the model has not"),
            (normal_model(), lambda: None, "the model samples 'z', which the guide does not"),
            (normal_model(), normal_guide("x"), "the guide samples site 'x', which the model observes"),
            (normal_model(), normal_guide(obs=torch.zeros(2)), "the guide observes site 'z'"),
            (
                normal_model(torch.tensor([1.0, torch.nan])),
                normal_guide(),
                r"the data of site 'x' \(Normal\) contain NaN",
            ),
            (normal_model(prior=dist.Gamma(1.0, 1.0)), normal_guide(), "outside the support of the model's site 'z'"),
        ],
    )
    @pytest.mark.parametrize("validation", [True, False])
    def test_is_told_in_a_sentence(self, model, guide, sentence, validation):
        torch.manual_seed(0)  # without validation the first draw alone is looked at
        elbo = BlackBoxELBO(5)
        with pyro.validation_enabled(validation), pytest.raises((ValueError, FloatingPointError), match=sentence):
            elbo.loss_and_grads(model, guide)

    def test_a_number_that_is_none_names_the_site_and_the_step(self):
        elbo, data = BlackBoxELBO(), torch.ones(2)
        model = normal_model(data)
        elbo.loss_and_grads(model, normal_guide())
        data[1] = torch.inf
        with (
            pyro.validation_enabled(False),
            pytest.raises(
                FloatingPointError, match=r"at step 2: the log-probability of site 'x' \(Normal\) in the model"
            ),
        ):
            elbo.loss_and_grads(model, normal_guide())

    @pytest.mark.parametrize("nesting", [1, float("inf")])
    def test_control_flow_with_vectorised_particles(self, nesting):
        def model():
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(1.0 if z.sum() > 0 else 0.0, 1.0), obs=torch.tensor(1.0))

        def guide():
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("p", torch.tensor(0.0))))

        elbo = BlackBoxELBO(2, vectorize_particles=True, max_plate_nesting=nesting)
        with pytest.raises(ValueError, match=r"'z' steer the program.*vectorize_particles=False"):
            elbo.loss_and_grads(model, guide)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"baseline": "leave_one_out"}, "needs at least 2: set num_particles=2 or more, got 1"),
            ({"baseline": "optimal"}, "needs at least 2"),
            ({"baseline": {"z": "leave_one_out"}}, "needs at least 2"),
            ({"baseline": "best"}, "there is no baseline 'best'.*or 'optimal'"),
            ({"num_particles": 0}, "num_particles must be at least 1"),
            ({"bound": "tighter"}, "bound must be 'elbo' or 'iwae'"),
            ({"bound": "iwae"}, "num_particles=2 or more"),
            ({"bound": "iwae", "num_particles": 2, "baseline": "none"}, "a baseline of its own"),
        ],
    )
    def test_options_that_make_no_sense(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            BlackBoxELBO(**options)

    def test_a_baseline_for_a_site_that_there_is_not(self):
        elbo = BlackBoxELBO(baseline={"y": "none"})
        with pytest.raises(ValueError, match=r"there is a baseline for 'y', but no site .* those that do are 'z'"):
            elbo.loss_and_grads(bits, bits_guide, X)

    def test_a_learned_baseline_without_a_network_or_its_input(self):
        without_network, without_input = (
            BlackBoxELBO(baseline="learned"),
            BlackBoxELBO(baseline=Learned(nn.Linear(1, 1))),
        )
        with pytest.raises(ValueError, match="site 'z': a learned baseline needs its network"):
            without_network.loss_and_grads(bits, bits_guide, X)
        with pytest.raises(ValueError, match="site 'z' needs an input for its network"):
            without_input.loss_and_grads(bits, bits_guide, X)
