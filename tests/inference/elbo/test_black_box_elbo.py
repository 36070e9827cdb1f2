import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedBeta
from pyro.infer import SVI
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal, AutoNormalMessenger
from torch import nn
from torch.distributions import constraints

from zoo.gradients import LearnedBaseline, RunningStd
from zoo.gradients.control_variates import ControlVariate
from zoo.inference.elbo import BlackBoxELBO

quiet = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


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
            {"num_particles": 4, "baseline": ControlVariate("factor", num_extra_samples=4)},
        ],
        ids=str,
    )
    def test_svi_finds_the_posterior_of_a_coin(self, options):
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        svi = SVI(coins, beta_guide, pyro.optim.Adam({"lr": 0.05}), BlackBoxELBO(**options))
        for _ in range(150):
            svi.step(flips)
        assert pyro.param("a").item() == pytest.approx(16, abs=1)
        assert pyro.param("b").item() == pytest.approx(14, abs=1)

    def test_step_returns_the_negative_elbo(self):
        svi = SVI(coins, beta_guide, pyro.optim.Adam({"lr": 0.0}), BlackBoxELBO(2000, vectorize_particles=True))
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        theirs = SVI(
            coins, beta_guide, pyro.optim.Adam({"lr": 0.0}), pyro.infer.Trace_ELBO(2000, 1, vectorize_particles=True)
        )
        expected = theirs.evaluate_loss(flips)
        assert svi.step(flips) == pytest.approx(expected, abs=0.1)
        assert svi.evaluate_loss(flips) == pytest.approx(expected, abs=0.1)

    def test_smaller_last_batch_keeps_baseline_shapes(self):
        elbo = BlackBoxELBO(baseline="moving_average")
        svi = SVI(bits, bits_guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        for batch in (X, X[:1], X[:3], X):
            svi.step(batch)
        assert elbo.estimators.sites["site z"].baseline.mean.value.ndim == 0

    def test_svi_trains_the_network_of_a_baseline(self):
        net = nn.Linear(1, 1)
        before = net.weight.detach().clone()
        svi = SVI(bits, informed_guide(net), pyro.optim.Adam({"lr": 0.1}), BlackBoxELBO(baseline="learned"))
        svi.step(X)
        assert not torch.equal(net.weight, before)
        assert net.weight.grad.abs().sum() == 0  # reset by SVI

    def test_loss_trains_nothing(self):
        elbo = BlackBoxELBO(baseline="moving_average")
        svi = SVI(bits, bits_guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        svi.step(X)
        state = {name: x.clone() for name, x in elbo.state_dict().items()}
        svi.evaluate_loss(X)
        assert all(torch.equal(x, state[name]) for name, x in elbo.state_dict().items())


class TestModule:
    def test_parameters_include_networks_of_baselines(self):
        net = nn.Linear(1, 1)
        elbo = BlackBoxELBO(2, baseline={"z": LearnedBaseline(net)})(bits, informed_guide(net))
        elbo(X).backward()
        assert {id(p) for p in net.parameters()} <= {id(p) for p in elbo.elbo.parameters()}
        assert net.weight.grad.abs().sum() > 0

    def test_module_returns_the_negative_elbo_with_gradient(self):
        elbo = BlackBoxELBO(2)
        loss = elbo.differentiable_loss(bits, bits_guide, X)
        torch.autograd.backward(loss)
        assert loss.item() > 0
        assert pyro.get_param_store()._params["weight"].grad.abs().sum() > 0

    @pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
    @pytest.mark.parametrize("vectorized", [False, True])
    def test_automatic_guide_is_supported(self, auto, vectorized):
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        svi = SVI(coins, auto(coins), pyro.optim.Adam({"lr": 0.01}), BlackBoxELBO(2, vectorize_particles=vectorized))
        assert svi.step(flips) > 0

    @pytest.mark.parametrize("vectorized", [False, True])
    def test_guide_that_runs_the_model_is_supported(self, vectorized):
        """Its loss equals that of the same guide that does not run the model."""
        flips = torch.tensor([1.0] * 6 + [0.0] * 4)
        found = []
        for auto in (AutoNormal, AutoNormalMessenger):
            pyro.clear_param_store()
            guide = auto(coins, init_scale=1e-3)
            found.append(BlackBoxELBO(2, vectorize_particles=vectorized).loss_and_grads(coins, guide, flips))
        assert found[0] == pytest.approx(found[1], abs=1.0)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"baseline": "leave_one_out"}, "needs at least 2 particles: set num_particles=2 or more, got 1"),
            ({"baseline": "optimal"}, "needs at least 2"),
            ({"baseline": {"z": "leave_one_out"}}, "needs at least 2"),
            ({"baseline": "best"}, "there is no baseline 'best'; .*, optimal, or a number"),
            ({"num_particles": 0}, "num_particles must be a whole number of 1 or more, got 0"),
            ({"num_particles": 2.5}, r"a whole number of 1 or more, got 2\.5"),
            ({"num_particles": "3"}, "num_particles must be .*, got '3'"),
            ({"vectorize_particles": "yes"}, "vectorize_particles must be True or False, got 'yes'"),
            ({"scale": True}, "scale must be a RunningStd or None, got True"),
            ({"max_plate_nesting": -1}, r"max_plate_nesting must be a whole number of 0 or more, .* got -1"),
            ({"max_plate_nesting": "a"}, r"max_plate_nesting must be a whole number of 0 or more, .* got 'a'"),
            ({"baseline": {1: "none"}}, "keys of baseline= must be names of sites, got 1"),
            ({"bound": "tighter"}, "bound must be 'elbo' or 'iwae'"),
            ({"bound": "iwae"}, "num_particles=2 or more"),
            ({"bound": "iwae", "num_particles": 2, "baseline": "none"}, "uses VIMCO.s own leave-one-out baseline"),
        ],
    )
    def test_invalid_options_raise(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            BlackBoxELBO(**options)

    @pytest.mark.parametrize(("programs", "sentence"), [((None, bits_guide), "the model"), ((bits, 3), "the guide")])
    def test_programs_that_are_not_callable_raise(self, programs, sentence):
        with pytest.raises(ValueError, match=f"{sentence} must be a function or a module that samples"):
            BlackBoxELBO().loss(*programs, X)


class TestScale:
    def test_scale_is_a_copy_updated_in_train_mode_from_all_sites(self):
        scale = RunningStd()
        elbo = BlackBoxELBO(2, baseline="none", scale=scale)
        elbo.eval().loss_and_grads(two_bits, two_bits)
        assert elbo.scale.mean.weight == 0
        elbo.train().loss_and_grads(two_bits, two_bits)
        assert elbo.scale.mean.weight > 0
        assert scale.mean.weight == 0
        assert "scale.mean.total" in elbo.state_dict()

    @pytest.mark.parametrize("bound", ["elbo", "iwae"])
    def test_scale_does_not_change_the_bound(self, bound):
        elbo = BlackBoxELBO(2, bound=bound, scale=RunningStd())
        for _ in range(3):
            elbo.loss_and_grads(two_bits, two_bits)
        assert elbo.loss_and_grads(two_bits, two_bits) == pytest.approx(0, abs=1e-6)


def bit_of(name):
    return pyro.sample(name, dist.Bernoulli(logits=pyro.param(f"logit of {name}", torch.zeros(1))))


def two_bits():
    with pyro.plate("data", 1):
        bit_of("a")
        bit_of("b")
