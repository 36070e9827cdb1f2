"""Values that only Python code inside a torch function uses: hooks, custom operators, branches of ``torch.cond``."""

import functools

import pytest
import torch
from torch.distributions import Bernoulli
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.gradients.graphs import trace

pytestmark = [
    pytest.mark.usefixtures("without_type_checks"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
]
ONE = torch.ones((), dtype=torch.float64)
P = 0.668187772168166  # σ(0.7)
HELD = []


def derivative(function, at=ONE):
    """Derivative of a function at 1, computed in the program."""
    a = at.clone().requires_grad_()
    return torch.autograd.grad(function(a), a)[0]


def with_hook(value, hook):
    value.register_hook(hook)
    return value


def by_cond(x):
    return torch.cond(torch.tensor(True), lambda a: a * x, lambda a: a * 1, (ONE,))


def by_cond_that_is_differentiated(x):
    operands = (torch.tensor(True), lambda a, x: (a * x,), lambda a, x: (a * 1,))
    return derivative(lambda a: torch.cond(*operands, (a, x))[0])


def by_while_loop(x):
    from torch._higher_order_ops.while_loop import while_loop

    return while_loop(lambda i, a: i < 1, lambda i, a: (i + 1, a * 0 + x), (torch.tensor(0), ONE))[1]


def by_map(x):
    from torch._higher_order_ops.map import map as map_function

    return map_function(lambda a: a * x, ONE.expand(1))[0]


def by_scan(x):
    from torch._higher_order_ops.scan import scan

    return scan(lambda carry, a: (carry + a * x, carry * 1), 0 * ONE, ONE.expand(1))[0]


def by_flex_attention(x):
    from torch.nn.attention.flex_attention import flex_attention

    key = torch.zeros(1, 1, 2, 1, dtype=torch.float64)
    value = torch.tensor([0.0, 1.0], dtype=torch.float64)[None, None, :, None]
    return flex_attention(
        key[:, :, :1], key, value, score_mod=lambda score, b, h, q, k: score + 60 * k * (2 * x - 1)
    ).sum()


def by_tensor_hook(x):
    return derivative(lambda a: with_hook(a * 1, lambda g: g * x))


def by_branch_in_a_hook(x):
    return derivative(lambda a: with_hook(a * 1, lambda g: g if x > 0 else 0 * g))


def by_numbers_in_a_hook(x):
    return derivative(lambda a: with_hook(a * 1, lambda g: g * x[None].tolist()[0]))


def by_array_in_a_hook(x):
    return derivative(lambda a: with_hook(a * 1, lambda g: g * float(x.numpy())))


def by_size_in_a_hook(x):
    return derivative(lambda a: with_hook(a * 1, lambda g: g * len(x[None].nonzero())))


def by_error_in_a_hook(x):
    def hook(gradient):
        try:
            torch.linalg.inv(x * torch.eye(2, dtype=x.dtype))
        except torch.linalg.LinAlgError:
            return 0 * gradient
        return gradient

    return derivative(lambda a: with_hook(a * 1, hook))


def by_error_around_a_hook(x):
    def hook(gradient):
        return torch.linalg.inv(x * torch.eye(2, dtype=x.dtype)).sum() / 2 * gradient

    try:
        derivative(lambda a: with_hook(a * 1, hook))
    except torch.linalg.LinAlgError:
        return 0.0
    return 1.0


def by_module_hook(x):
    module = torch.nn.Identity()
    module.register_full_backward_hook(lambda module, before, after: (before[0] * x,))
    return derivative(lambda a: module(a).sum())


def by_what_a_hook_keeps(x):
    HELD.clear()
    a = ONE.clone().requires_grad_()
    a.register_hook(lambda g: HELD.append(g.item()))
    torch.autograd.grad(with_hook(a * x, lambda g: None), a)
    return HELD[0]


def by_hook_of_backward(x):
    a = ONE.clone().requires_grad_()
    with_hook(a * 1, lambda g: g * x).backward()
    return a.grad * 1


class TimesHeld(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, held):
        ctx.held = held
        return a * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.held[0], None


def by_backward_of_a_function(x):
    return derivative(lambda a: TimesHeld.apply(a, [x]))


class Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, x):
        ctx.save_for_backward(x)
        return a * 1

    @staticmethod
    def backward(ctx, gradient):
        HELD.append(ctx.saved_tensors[0].item())
        return gradient, None


def by_what_a_backward_keeps(x):
    HELD.clear()
    derivative(lambda a: Kept.apply(a, x))
    return HELD[0]


def by_saved_tensors_hook(x):
    HELD.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda v: HELD.append(v.item()) or v, lambda v: v):
        ONE.clone().requires_grad_() * x
    return HELD[0]


@torch.library.custom_op("zoo_tests::times_held", mutates_args=())
def times_held(a: torch.Tensor) -> torch.Tensor:
    return a * HELD[0]


@torch.library.custom_op("zoo_tests::hold_number", mutates_args=())
def hold_number(a: torch.Tensor) -> torch.Tensor:
    HELD[:] = [a.tolist()]
    return 0 * a


library = torch.library.Library("zoo_tests_of_library", "DEF")
library.define("times_held(Tensor a) -> Tensor")
library.impl("times_held", lambda a: a * HELD[0], "CPU")


def by_custom_operator(x):
    HELD[:] = [x]
    return times_held(ONE)


def by_what_a_custom_operator_keeps(x):
    hold_number(x)
    return HELD[0]


def by_kernel_of_a_library(x):
    HELD[:] = [x]
    return torch.ops.zoo_tests_of_library.times_held(ONE)


@torch.jit.ignore
def ignored(a: torch.Tensor) -> torch.Tensor:
    return a * HELD[0]


@functools.cache
def scripted():
    def call(a: torch.Tensor):
        return ignored(a)

    return torch.jit.script(call)


def by_function_that_a_script_ignores(x):
    HELD[:] = [x]
    return scripted()(ONE)


def by_apply(x):
    return torch.zeros(1, dtype=torch.float64).apply_(lambda v: v + float(x)).sum()


class Size:
    def __init__(self, tensor):
        self.tensor = tensor

    def __index__(self):
        return int(self.tensor)


def by_size_of_an_own_class(x):
    return torch.ones(Size(x), dtype=torch.float64).sum()


def by_distance_function(x):
    return torch.nn.functional.triplet_margin_with_distance_loss(
        0 * ONE[None, None], ONE[None, None], ONE[None, None], distance_function=lambda a, b: (a - b).sum(-1) * x
    ) - (1 - x)


class Scaled(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        return result * HELD[0] if func is torch.Tensor.add else result


def by_subclass(x):
    HELD[:] = [x]
    return torch.Tensor.add(ONE.as_subclass(Scaled), 0 * ONE).as_subclass(torch.Tensor)


class Wrapper(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return func(*(arg.inner if isinstance(arg, Wrapper) else arg for arg in args), **(kwargs or {})) * HELD[0]


def by_subclass_that_dispatches(x):
    HELD[:] = [x]
    return Wrapper(ONE).add(0)


class Multiplying(TorchDispatchMode):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {})) * self.x


def by_dispatch_mode(x):
    with Multiplying(x):
        return ONE.neg().neg()


CASES = [value for name, value in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("make_cost", CASES, ids=lambda make_cost: make_cost.__name__)
def test_values_used_inside_a_torch_function_are_tracked(make_cost):
    """Each cost is x alone, so that the gradient of its mean is σ'(θ)."""

    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", torch.as_tensor(make_cost(x), dtype=torch.float64).detach())

    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    gradient = 0.0
    for value, probability in ((0.0, 1 - P), (1.0, P)):
        graph = trace(program, theta, draw=lambda *_, value=value: torch.tensor(value, dtype=torch.float64))
        assert graph.costs["f"].item() == pytest.approx(value)
        gradient += probability * torch.autograd.grad(graph.surrogate(), theta)[0].item()
    assert gradient == pytest.approx(P * (1 - P))


def through_hook_of_other_values(x):
    return derivative(lambda a: with_hook(a * 1, lambda g: g * 2))


def through_custom_operator_of_other_values(x):
    HELD[:] = [ONE]
    return times_held(ONE)


def through_cond_of_other_values(x):
    return torch.cond(torch.tensor(True), lambda a: a * 2, lambda a: a * 1, (ONE,))


class Untouched(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def through_mode_of_other_values(x):
    with Multiplying(ONE), Untouched():
        return ONE * 2


@pytest.mark.parametrize(
    "make_cost",
    [
        through_hook_of_other_values,
        through_custom_operator_of_other_values,
        through_cond_of_other_values,
        through_mode_of_other_values,
    ],
    ids=lambda make_cost: make_cost.__name__,
)
def test_torch_functions_that_run_python_without_a_value_do_not_depend_on_it(make_cost):
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", make_cost(x).detach())

    assert trace(program, torch.tensor(0.7, requires_grad=True)).influences("x") == frozenset()
