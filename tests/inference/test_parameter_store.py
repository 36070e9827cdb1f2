import pyro
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

from zoo.inference.parameter_store import ParameterStore


@pytest.fixture(autouse=True)
def users_store():
    """A global store in which the user keeps a parameter of the same name."""
    with pyro.get_param_store().scope():
        pyro.param("scale", torch.tensor(9.0), constraint=constraints.positive)
        yield pyro.get_param_store()


def scale():
    return pyro.param("scale", lambda: torch.tensor(2.0), constraint=constraints.positive)


def adopted(program, *owners):
    store = ParameterStore()
    with store.capture(*owners):
        program()
    return store


class TestAParameterOfAFunction:
    def test_starts_at_its_own_value_not_at_that_of_the_global_store(self):
        store = adopted(scale)
        with store.activate():
            assert scale().item() == pytest.approx(2)

    def test_is_a_parameter_of_the_module_and_learns_unconstrained(self):
        store = adopted(scale)
        (parameter,) = store.parameters()
        with store.activate():
            scale().backward()
        assert parameter.grad.item() == pytest.approx(2.0, rel=0.2)  # of softplus, or of exp
        parameter.data.fill_(-50.0)
        with store.activate():
            assert 0 <= scale().item() < 1e-6

    def test_leaves_the_global_store_as_it_was(self, users_store):
        store = adopted(scale)
        with store.activate():
            scale()
        assert list(users_store) == ["scale"]
        assert users_store["scale"].item() == pytest.approx(9)

    def test_so_does_a_program_that_fails(self, users_store):
        store = adopted(scale)
        with pytest.raises(ZeroDivisionError), store.activate():
            _ = 1 / 0
        assert users_store["scale"].item() == pytest.approx(9)

    def test_is_saved_and_loaded_whatever_its_name(self):
        def program():
            return pyro.param("a.b/keys", torch.ones(2)) + pyro.param("keys", torch.zeros(2))

        one, other = adopted(program), adopted(program)
        for parameter in one.parameters():
            parameter.data += 3
        other.load_state_dict(one.state_dict())
        with other.activate():
            assert program().tolist() == [7, 7]

    def test_that_comes_late_is_refused(self):
        def late(wanted):
            return pyro.param("late", torch.ones(())) if wanted else scale()

        store = adopted(lambda: late(False))
        with (
            pytest.raises(ValueError, match="creates parameter 'late' after its first run, too late for the optimizer"),
            store.activate(),
        ):
            late(True)


class Net(PyroModule):
    def __init__(self):
        super().__init__()
        self.scale = PyroParam(torch.tensor(3.0), constraints.positive)
        self.linear = nn.Linear(2, 2)
        self.shift = nn.Parameter(torch.ones(2))

    def forward(self):
        return self.linear(self.scale * torch.ones(2)) + self.shift


class TestParametersOfAModule:
    def test_stay_with_it_though_the_global_store_has_some_of_the_same_name(self):
        net = Net()
        store = adopted(net, net)
        assert list(store.parameters()) == []
        with store.activate(net):
            net().sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        assert net.scale.item() == pytest.approx(3)

    def test_of_a_function_s_module_are_taken_as_they_are(self):
        linear = nn.Linear(2, 2)
        store = adopted(lambda: pyro.module("linear", linear))
        assert {id(p) for p in store.parameters()} == {id(p) for p in linear.parameters()}

    def test_that_are_reached_late_are_no_strangers(self):
        net = Net()
        store = adopted(scale, net)
        with store.activate(net):
            net()
