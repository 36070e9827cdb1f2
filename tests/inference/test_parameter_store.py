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
    def test_captured_parameter_ignores_value_in_global_store(self):
        store = adopted(scale)
        with store.activate():
            assert scale().item() == pytest.approx(2)

    def test_captured_parameter_is_module_parameter_and_unconstrained(self):
        store = adopted(scale)
        (parameter,) = store.parameters()
        with store.activate():
            scale().backward()
        assert parameter.grad.item() == pytest.approx(2.0, rel=0.2)  # of softplus, or of exp
        parameter.data.fill_(-50.0)
        with store.activate():
            assert 0 <= scale().item() < 1e-6

    def test_capture_leaves_global_store_unchanged(self, users_store):
        store = adopted(scale)
        with store.activate():
            scale()
        assert list(users_store) == ["scale"]
        assert users_store["scale"].item() == pytest.approx(9)

    def test_failing_program_leaves_global_store_unchanged(self, users_store):
        store = adopted(scale)
        with pytest.raises(ZeroDivisionError), store.activate():
            _ = 1 / 0
        assert users_store["scale"].item() == pytest.approx(9)

    def test_parameter_with_any_name_is_saved_and_loaded(self):
        def program():
            return pyro.param("a.b/keys", torch.ones(2)) + pyro.param("keys", torch.zeros(2))

        one, other = adopted(program), adopted(program)
        for parameter in one.parameters():
            parameter.data += 3
        other.load_state_dict(one.state_dict())
        with other.activate():
            assert program().tolist() == [7, 7]

    def test_parameter_created_after_first_run_raises(self):
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
    def test_module_parameters_are_used_despite_same_names_in_global_store(self):
        net = Net()
        store = adopted(net, net)
        assert list(store.parameters()) == []
        with store.activate(net):
            net().sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        assert net.scale.item() == pytest.approx(3)

    def test_parameters_of_module_in_function_are_captured_unchanged(self):
        linear = nn.Linear(2, 2)
        store = adopted(lambda: pyro.module("linear", linear))
        assert {id(p) for p in store.parameters()} == {id(p) for p in linear.parameters()}

    def test_parameters_of_owner_used_late_are_allowed(self):
        net = Net()
        store = adopted(scale, net)
        with store.activate(net):
            net()
