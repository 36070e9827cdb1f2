"""Baselines specified by sites with the options of ``pyro.infer.TraceGraph_ELBO``."""

import io

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceGraph_ELBO
from torch import nn

from zoo.inference.elbo import BlackBoxELBO

X = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)


def guide_of(**baseline):
    """A guide with one parameter; options that are functions are called with the data."""

    def guide(x):
        options = {
            key: make(x) if key in ("nn_baseline_input", "baseline_value") else make for key, make in baseline.items()
        }
        with pyro.plate("data", len(x)):
            logits = pyro.param("slope", torch.tensor(0.3)) * x
            pyro.sample("z", dist.Bernoulli(logits=logits), infer={"baseline": options})

    return guide


class Net(nn.Module):
    """A network whose input has two features for each datum."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x):
        return self.linear(x.flatten(-2)).squeeze(-1)


def pictures(x):
    return x[:, None, None].expand(-1, 2, 2)


def gradients(elbo, guide, net):
    """Gradients of the guide's parameter and of a network, with fixed random numbers."""
    pyro.clear_param_store()
    net.zero_grad()
    pyro.set_rng_seed(3)
    elbo.loss_and_grads(model, guide, X)
    slope = dict(pyro.get_param_store().named_parameters())["slope"]
    return [slope.grad, *(parameter.grad for parameter in net.parameters())]


OPTIONS = {
    "a module": lambda net: {"nn_baseline": net, "nn_baseline_input": pictures},
    "a function": lambda net: {"nn_baseline": lambda x: net(x) + 1, "nn_baseline_input": pictures},
    "a value": lambda net: {"baseline_value": lambda x: net(pictures(x)), "nn_baseline": None},
    "a value beside the average that is off": lambda net: {
        "baseline_value": lambda x: net(pictures(x)),
        "use_decaying_avg_baseline": False,
        "baseline_beta": 0.5,
    },
    "a value in the first step of an average": lambda net: {
        "baseline_value": lambda x: net(pictures(x)),
        "use_decaying_avg_baseline": True,
    },
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    "particles", [{}, {"num_particles": 3, "vectorize_particles": True}], ids=["one", "vectorized"]
)
def test_gradients_of_guide_and_network_equal_those_of_trace_graph_elbo(name, particles):
    net = Net()
    options = OPTIONS[name](net)
    if particles:  # Pyro requires a baseline for each particle
        theirs = {key: repeated(make, 3) if callable(make) else make for key, make in options.items()}
    else:
        theirs = options
    found = gradients(BlackBoxELBO(**particles), guide_of(**options), net)
    expected = gradients(TraceGraph_ELBO(**particles, max_plate_nesting=1), guide_of(**theirs), net)
    assert all(gradient.abs().sum() > 0 for gradient in expected)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def repeated(make, particles):
    return lambda x: (lambda y: y.expand(particles, *y.shape))(make(x)) if x.ndim == 1 else make(x)


def test_each_sequential_particle_has_its_prediction():
    net = Net()
    options = OPTIONS["a module"](net)
    found = gradients(BlackBoxELBO(3), guide_of(**options), net)
    expected = gradients(TraceGraph_ELBO(3), guide_of(**options), net)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_function_created_in_each_run_is_called():
    """The baseline of the first run would not reduce the gradient of the second."""

    def guide(x, offset):
        with pyro.plate("data", len(x)):
            logits = pyro.param("slope", torch.tensor(0.3)) * x
            options = {"nn_baseline": lambda _: torch.full((len(x),), offset)}
            pyro.sample("z", dist.Bernoulli(logits=logits), infer={"baseline": options})

    def step(elbo, offset):
        pyro.set_rng_seed(0)
        elbo.loss_and_grads(lambda x, _: model(x), guide, X, offset)
        slope = dict(pyro.get_param_store().named_parameters())["slope"]
        gradient, slope.grad = slope.grad, None
        return gradient

    elbo = BlackBoxELBO()
    first, second = step(elbo, 0.0), step(elbo, 5.0)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(second, step(BlackBoxELBO(), 5.0))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"baseline_value": lambda x: x[:3]}, r"baseline at site 'z' has shape \(3,\), which does not fit the batch"),
        ({"nn_baseline": lambda x: 3}, "the nn_baseline of site 'z' must return a tensor, got 3"),
        ({"nn_baseline": lambda x: x.sum(-1), "nn_baseline_input": pictures}, "does not fit the batch"),
        ({"nn_baseline": nn.Linear(3, 1), "nn_baseline_input": pictures}, "site 'z': .*cannot be multiplied"),
        ({"nn_baseline": nn.Linear(1, 1)}, "site 'z' needs an input for its network"),
    ],
)
def test_baseline_that_cannot_be_computed_raises(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        BlackBoxELBO().loss_and_grads(model, guide_of(**options), X)


class TestParameterStore:
    """Networks of baselines are in Pyro's parameter store."""

    def options(self, net):
        return {"nn_baseline": net, "nn_baseline_input": pictures}

    def test_baseline_can_have_its_own_learning_rate_by_name(self):
        asked = []

        def rate(name):
            asked.append(name)
            return {"lr": 0.5 if name.startswith("baselines.") else 0.0}

        net = Net()
        before = net.linear.weight.detach().clone()
        SVI(model, guide_of(**self.options(net)), pyro.optim.SGD(rate), BlackBoxELBO()).step(X)
        assert sorted(asked) == ["baselines.z.net.linear.bias", "baselines.z.net.linear.weight", "slope"]
        assert (net.linear.weight - before).abs().sum() > 0
        assert pyro.param("slope") == 0.3

    @pytest.mark.parametrize("make", [pyro.optim.Adam, pyro.optim.ClippedAdam, pyro.optim.AdagradRMSProp])
    def test_training_resumes_exactly_from_a_saved_store_and_optimizer(self, make):
        def steps(svi, number):
            for _ in range(number):
                svi.step(X)
            return {name: value.detach().clone() for name, value in pyro.get_param_store().named_parameters()}

        def fresh():
            torch.manual_seed(0)
            return make({}), Net()

        optimizer, net = fresh()
        svi = SVI(model, guide_of(**self.options(net)), optimizer, BlackBoxELBO())
        pyro.set_rng_seed(1)
        steps(svi, 3)
        saved = [io.BytesIO(), io.BytesIO()]
        torch.save(pyro.get_param_store().get_state(), saved[0])
        torch.save(optimizer.get_state(), saved[1])
        state = pyro.util.get_rng_state()
        expected = steps(svi, 3)

        pyro.clear_param_store()
        optimizer, net = fresh()
        for kept in saved:
            kept.seek(0)
        pyro.get_param_store().set_state(torch.load(saved[0], weights_only=False))
        optimizer.set_state(torch.load(saved[1], weights_only=False))
        svi = SVI(model, guide_of(**self.options(net)), optimizer, BlackBoxELBO())
        pyro.util.set_rng_state(state)
        found = steps(svi, 3)
        assert set(found) == {"slope", "baselines.z$$$net.linear.weight", "baselines.z$$$net.linear.bias"}
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        torch.testing.assert_close(net.linear.weight, expected["baselines.z$$$net.linear.weight"], rtol=0, atol=0)

    def test_network_registered_by_the_guide_keeps_its_names(self):
        net = Net()

        def guide(x):
            pyro.module("mine", net)
            guide_of(**self.options(net))(x)

        optimizer = pyro.optim.Adam({"lr": 0.1})
        SVI(model, guide, optimizer, BlackBoxELBO()).step(X)
        names = {"slope", "mine$$$linear.weight", "mine$$$linear.bias"}
        assert set(optimizer.get_state()) == set(pyro.get_param_store()) == names

    def test_network_of_another_shape_in_the_store_raises(self):
        svi = [
            SVI(
                model,
                guide_of(nn_baseline=net, nn_baseline_input=lambda x: x[:, None]),
                pyro.optim.Adam({}),
                BlackBoxELBO(),
            )
            for net in (nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1)), nn.Linear(1, 1, bias=False))
        ]
        svi[0].step(X)
        svi[1].step(X)  # other names
        svi[2].step(X)  # the store's weight
        pyro.get_param_store()["baselines.z$$$net.weight"] = torch.ones(5, 1)
        with pytest.raises(ValueError, match=r"already has 'baselines.z\$\$\$net.weight' of shape \(5, 1\)"):
            svi[2].step(X)

    def test_loss_optimized_by_torch_does_not_change_the_store(self):
        net = Net()
        BlackBoxELBO().differentiable_loss(model, guide_of(**self.options(net)), X).backward()
        assert set(pyro.get_param_store()) == {"slope"}
        assert net.linear.weight.grad.abs().sum() > 0

    def test_elbo_can_be_pickled(self):
        elbo = BlackBoxELBO(baseline="learned")
        guide = guide_of(nn_baseline=nn.Linear(1, 1), nn_baseline_input=lambda x: x[:, None])
        SVI(model, guide, pyro.optim.Adam({}), elbo).step(X)
        kept = io.BytesIO()
        torch.save(elbo, kept)
        kept.seek(0)
        assert len(list(torch.load(kept, weights_only=False).parameters())) == 2
