"""Values that torch wraps in another Python object keep their names, views included."""

import copy

import pytest
import torch
from torch import nn
from torch.distributions import Categorical
from torch.utils.checkpoint import checkpoint

from zoo.gradients.graphs import expected_cost, trace
from zoo.gradients.testing import check_unbiased

pytestmark = pytest.mark.usefixtures("without_type_checks")
TABLE = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)


class Tagged(torch.Tensor):
    pass


class Wrapper(torch.Tensor):
    """A wrapper subclass, which computes with the tensor in it."""

    @staticmethod
    def __new__(cls, kept):
        return torch.Tensor._make_wrapper_subclass(cls, kept.shape, dtype=kept.dtype)

    def __init__(self, kept):
        self.kept = kept

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args = [arg.kept if isinstance(arg, Wrapper) else arg for arg in args]
        return Wrapper(func(*args, **(kwargs or {})))


class Cube(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(w):
        return w**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient * ctx.saved_tensors[0] ** 2


@torch.library.custom_op("zoo_tests::cube", mutates_args=())
def cube(w: torch.Tensor) -> torch.Tensor:
    return w**3


@torch.library.custom_op("zoo_tests::write", mutates_args={"out"})
def write(w: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(w)


def written(w):
    out = torch.zeros((), dtype=w.dtype)
    write(w, out)
    return out


def in_dual_level(w):
    from torch.autograd import forward_ad

    with forward_ad.dual_level():
        return forward_ad.unpack_dual(forward_ad.make_dual(ONE, w) ** 2).tangent


def functional_call(w):
    module = nn.Linear(1, 1).double()
    return torch.func.functional_call(module, {"weight": w.reshape(1, 1), "bias": w.reshape(1)}, ONE.reshape(1, 1))


def module_with_parameter(w):
    module = nn.Linear(1, 1, bias=False).double()
    module.weight = nn.Parameter(w.reshape(1, 1))
    return module(ONE.reshape(1, 1))


def masked(w):
    return torch.masked.masked_tensor(w.reshape(1), torch.tensor([True])).sum().to_tensor(0)


REWRAPPED = {
    "func.grad": lambda w: torch.func.grad(lambda a: a**3)(w),
    "func.grad_and_value": lambda w: torch.func.grad_and_value(lambda a: a**3)(w)[1],
    "func.grad_of_a_closure": lambda w: torch.func.grad(lambda a: a * w)(ONE),
    "func.vjp": lambda w: torch.func.vjp(lambda a: a**3, w)[0],
    "func.vjp_function": lambda w: torch.func.vjp(lambda a: a**3, w)[1](ONE)[0],
    "func.jvp": lambda w: torch.func.jvp(lambda a: a**3, (ONE,), (w,))[1],
    "func.jacrev": lambda w: torch.func.jacrev(lambda a: a**3)(w),
    "func.jacfwd": lambda w: torch.func.jacfwd(lambda a: a**3)(w),
    "func.hessian": lambda w: torch.func.hessian(lambda a: a**3)(w),
    "func.vmap": lambda w: torch.func.vmap(lambda a: a**3)(w[None]),
    "func.vmap_of_grad": lambda w: torch.func.vmap(torch.func.grad(lambda a: a**3))(w[None]),
    "func.grad_of_vmap": lambda w: torch.func.grad(lambda a: torch.func.vmap(torch.sin)(a[None]).sum())(w),
    "func.functional_call": functional_call,
    "autograd.functional": lambda w: torch.autograd.functional.vjp(lambda a: a**3, w)[1],
    "autograd.Function": lambda w: Cube.apply(w),
    "autograd.Function_and_func.grad": lambda w: torch.func.grad(Cube.apply)(w),
    "autograd.Function_and_func.vmap": lambda w: torch.func.vmap(Cube.apply)(w[None]),
    "dual_level": in_dual_level,
    "checkpoint": lambda w: checkpoint(lambda a: a**3, w, use_reentrant=False),
    "Parameter": nn.Parameter,
    "Parameter_of_a_module": module_with_parameter,
    "Buffer": nn.Buffer,
    "Variable": torch.autograd.Variable,
    "data": lambda w: w.data,
    "deepcopy": copy.deepcopy,
    "constructor_of_a_type": torch.DoubleTensor,
    "as_subclass": lambda w: 1 * w.as_subclass(Tagged),
    "make_subclass": lambda w: torch.Tensor._make_subclass(Tagged, w),
    "wrapper_subclass": lambda w: (2 * Wrapper(w)).kept,
    "masked_tensor": masked,
    "nested_tensor": lambda w: torch.nested.nested_tensor([w[None], w[None]], layout=torch.strided)[0],
    "jagged_tensor": lambda w: torch.nested.nested_tensor([w[None], w[None]], layout=torch.jagged).values(),
    "quantized": lambda w: torch.quantize_per_tensor(w.float(), 0.001, 0, torch.qint32).dequantize(),
    "from_numpy": lambda w: torch.from_numpy(w.numpy()),
    "frombuffer": lambda w: torch.frombuffer(w[None].numpy(), dtype=w.dtype),
    "custom_op": cube,
    "custom_op_that_writes": written,
    "cond": lambda w: torch.cond(torch.tensor(True), lambda a: a**3, lambda a: a * 2, (w,)),
    "cond_on_it": lambda w: torch.cond(w > 0.7, lambda a: a * 2, lambda a: a * 3, (ONE,)),
    "compiled": lambda w: torch.compile(lambda a: a**3, backend="eager")(w),
    "swapped": lambda w: swapped(w),
}


def swapped(w):
    other = torch.zeros((), dtype=w.dtype)
    torch.utils.swap_tensors(other, w.clone())
    return other


VALUES = {
    "view": lambda k: TABLE[k],
    "tensor_of_its_own": lambda k: 1.5 * k - 1,
    "slice": lambda k: TABLE[k : k + 1][0],
}


def program_with(change, value):
    def program(graph, theta):
        k = graph.sample("k", Categorical(logits=theta))
        graph.cost("f", change(value(k).double()).detach().double().sum())

    return program


@pytest.fixture
def theta():
    return torch.tensor([0.7, -0.4, 0.3], dtype=torch.float64, requires_grad=True)


@pytest.mark.filterwarnings("ignore")  # of prototypes
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("change", REWRAPPED.values(), ids=REWRAPPED)
def test_rewrapped_values_are_tracked(change, value, theta):
    assert trace(program_with(change, value), theta).influences("k") == {"f"}


def test_gradient_of_func_grad_of_a_lookup_is_exact(theta):
    """``E[3 w²]``, whose gradient is ``p (3 w² - E[3 w²])``."""
    program = program_with(REWRAPPED["func.grad"], VALUES["view"])

    def estimator(program, theta, *, draw):
        return trace(program, theta, draw=draw).surrogate()

    assert check_unbiased(estimator, program, theta)
    p = theta.detach().softmax(0)
    cost = 3 * TABLE**2
    (gradient,) = torch.autograd.grad(expected_cost(program, theta), theta)
    torch.testing.assert_close(gradient, p * (cost - p @ cost))


def test_functionalize_raises_an_error(theta):
    program = program_with(lambda w: torch.func.functionalize(lambda a: a**3)(w), VALUES["view"])
    with pytest.raises(ValueError, match="functionalize cannot be tracked, and its input depends on 'k'"):
        trace(program, theta)


class TestNeighboringMemory:
    """Marking a view of a table marks neither its other rows, nor the same row looked up by a constant."""

    @pytest.mark.parametrize(
        "beside",
        [
            lambda table: table[0],
            lambda table: table.sum(),
            lambda table: torch.func.grad(lambda a: (a**2).sum())(table).sum(),
            lambda table: nn.Parameter(table).sum(),
            lambda table: table.view_as(table)[0],
        ],
        ids=["row", "sum", "gradient", "parameter", "view"],
    )
    def test_neighboring_values_are_not_marked(self, beside):
        def program(graph, theta):
            table = TABLE.clone()
            k = graph.sample("k", Categorical(logits=theta))
            looked_up = table[k]
            graph.cost("beside", beside(table))
            graph.cost("looked up", looked_up)

        draw = {"draw": lambda *_: torch.tensor(0)}
        assert trace(program, torch.zeros(3), **draw).influences("k") == {"looked up"}
