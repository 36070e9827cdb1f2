"""A call that could have raised influences a program that handles the error as much as one that did."""

import concurrent.futures
import contextlib
import functools
import sys
import threading
import warnings
from typing import Any, NamedTuple

import pyro
import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, jaxtyped
from pyro import poutine
from torch.distributions import Bernoulli, Normal

from zoo.gradients.graphs import expected_cost, trace
from zoo.gradients.graphs._provenance.error_handlers import error_is_handled
from zoo.gradients.testing import check_unbiased

pytestmark = pytest.mark.usefixtures("without_type_checks")
IDENTITY = torch.eye(2, dtype=torch.float64)


class Guard:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return True


class Guarding(torch.nn.Module):
    def forward(self):
        return Guard()


@contextlib.contextmanager
def swallowing():
    with contextlib.suppress(Exception):
        yield


def by_except(x):
    try:
        torch.linalg.cholesky((2 * x - 1) * IDENTITY)
        return 1.0
    except torch.linalg.LinAlgError:
        return 4.0


def by_bare_except(x):
    try:
        torch.linalg.inv(x * IDENTITY)
        return 1.0
    except:  # noqa: E722
        return 4.0


def by_else(x):
    try:
        torch.linalg.inv(x * IDENTITY)
    except RuntimeError:
        pass
    else:
        return 1.0
    return 4.0


def by_group(x):
    paid = 4.0
    try:
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    except* RuntimeError:
        pass
    return paid


def by_return_from_finally(x):
    paid = 4.0
    try:
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    finally:
        return paid  # noqa: B012


def by_suppress(x):
    paid = 4.0
    with contextlib.suppress(Exception):
        torch.linalg.solve(x * IDENTITY, IDENTITY)
        paid = 1.0
    return paid


def by_suppress_beside_no_grad(x):
    paid = 4.0
    with torch.no_grad(), contextlib.suppress(Exception):
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    return paid


def by_context_manager(x):
    paid = 4.0
    with Guard():
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    return paid


def by_generator_as_context_manager(x):
    paid = 4.0
    with swallowing():
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    return paid


def by_stack(x):
    paid = 4.0
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(Exception))
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    return paid


def by_caller(x):
    def invert():
        return torch.linalg.inv(x * IDENTITY)

    try:
        invert()
        return 1.0
    except RuntimeError:
        return 4.0


def by_module(x):
    try:
        torch.nn.functional.embedding(x.long(), IDENTITY[:1])
        return 1.0
    except IndexError:
        return 4.0


def by_index(x):
    try:
        IDENTITY[2 * x.long()]
        return 1.0
    except IndexError:
        return 4.0


def by_argument_of_a_distribution(x):
    try:
        Normal(0.0, 2 * x - 1)
        return 1.0
    except ValueError:
        return 4.0


def by_value_of_a_distribution(x):
    try:
        Bernoulli(probs=torch.tensor(0.5, dtype=torch.float64)).log_prob(2 * x)
        return 1.0
    except ValueError:
        return 4.0


def by_assertion(x):
    try:
        assert x > 0
        return 1.0
    except AssertionError:
        return 4.0


def by_item(x):
    try:
        return [4.0, 1.0, 1.0][int(2 * x) + 1]
    except IndexError:
        return 3.0


def by_guard_that_torch_makes_of_two_variables(x):
    module, weights, paid = Guarding(), {}, 4.0
    with torch.func.functional_call(module, weights):
        torch.linalg.cholesky((2 * x - 1) * IDENTITY)
        paid = 1.0
    return paid


def by_script(x):
    warnings.simplefilter("ignore")
    try:
        torch.jit.trace(torch.linalg.inv, IDENTITY)(x * IDENTITY)
        return 1.0
    except Exception:
        return 4.0


def by_thread(x):
    done = []

    def work():
        torch.linalg.inv(x * IDENTITY)
        done.append(1.0)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return sum(done)


def by_future(x):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        error = pool.submit(lambda: torch.linalg.inv(x * IDENTITY)).exception()
    return 1.0 if error is None else 4.0


HANDLERS = [value for name, value in list(globals().items()) if name.startswith("by_")]


def program_with(cost):
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        y = graph.sample("y", Bernoulli(logits=-theta))
        graph.cost("f", theta.new_tensor(cost(x)))
        graph.cost("g", y)

    return program


@pytest.fixture
def theta():
    return torch.tensor(0.7, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def quiet_threads(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)


@pytest.mark.usefixtures("quiet_threads")
@pytest.mark.parametrize("cost", HANDLERS, ids=lambda cost: cost.__name__)
def test_handled_errors_are_control_dependencies(cost, theta):
    program = program_with(cost)
    for value in (0.0, 1.0):
        graph = trace(program, theta, draw=lambda *_, value=value: torch.tensor(value, dtype=torch.float64))
        assert "f" in graph.influences("x")

    def estimator(program, theta, *, draw):
        return trace(program, theta, draw=draw).surrogate()

    assert check_unbiased(estimator, program, theta)


def test_gradient_equals_closed_form(theta):
    """E[f + g] = 4 - 3 σ(θ) + σ(-θ)."""
    (gradient,) = torch.autograd.grad(expected_cost(program_with(by_except), theta), theta)
    p = theta.detach().sigmoid()
    torch.testing.assert_close(gradient, -4 * p * (1 - p))


def in_finally(x):
    try:
        y = 2 * x
    finally:
        y = 1.0
    return y


def in_no_grad(x):
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        2 * x
    return 1.0


def in_handler(x):
    try:
        raise KeyError
    except KeyError:
        2 * x
    return 1.0


@contextlib.contextmanager
def doubled(x):
    yield 2 * x


def in_making_a_context(x):
    with doubled(x):
        return 1.0


def in_arithmetic(x):
    try:
        y = torch.log(2 * x - 1).sum()
        return 1.0
    except RuntimeError:
        return y


def after_try(x):
    try:
        y = 1.0
    except ValueError:
        y = 2.0
    2 * x
    return y


@pytest.mark.parametrize(
    "cost",
    [in_finally, in_no_grad, in_handler, in_making_a_context, in_arithmetic, after_try],
    ids=lambda cost: cost.__name__,
)
def test_unhandled_errors_are_no_control_dependencies(cost, theta):
    with contextlib.suppress(KeyError):  # around the trace, not in the program
        graph = trace(program_with(cost), theta)
    assert graph.influences("x") == frozenset()


class Managers(NamedTuple):
    plate: Any
    guard: Any


def masked(x):
    return poutine.mask(mask=torch.tensor(True))


@contextlib.contextmanager
def passing_on():
    yield


def in_local_plate(x):
    2 * x  # before there is a plate
    plate = pyro.plate("data", 3)
    with plate:
        torch.linalg.cholesky((2 + x) * IDENTITY)
    return 1.0


def in_field_of_a_tuple(x):
    managers = Managers(pyro.plate("data", 3), Guard())
    with managers.plate:
        torch.linalg.cholesky((2 + x) * IDENTITY)
    return 1.0


def in_what_a_function_makes(x):
    with masked(x), passing_on(), contextlib.nullcontext():
        torch.linalg.cholesky((2 + x) * IDENTITY)
    return 1.0


@jaxtyped(typechecker=beartype)
def checked_mask(where: Bool[torch.Tensor, ""]) -> Any:
    return poutine.mask(mask=where)


def in_what_a_type_checked_function_makes(x):
    everything = torch.tensor(True)
    with checked_mask(everything):
        torch.linalg.cholesky((2 + x) * IDENTITY)
    return 1.0


def in_stack_of_plates(x):
    with contextlib.ExitStack() as stack:
        stack.enter_context(pyro.plate("data", 3))
        stack.callback(print, end="")
        torch.linalg.cholesky((2 + x) * IDENTITY)
    return 1.0


def in_plate_that_is_a_property(x):
    class Forecast:
        @property
        def time_plate(self):
            return pyro.plate("time", 3)

    forecast = Forecast()
    with forecast.time_plate:
        torch.linalg.cholesky((2 + x) * IDENTITY)
    return 1.0


def in_decorated_function(x):
    @passing_on()
    @torch.no_grad()
    def double():
        torch.linalg.cholesky((2 + x) * IDENTITY)

    double()
    return 1.0


@pytest.mark.parametrize(
    "cost",
    [
        in_stack_of_plates,
        in_plate_that_is_a_property,
        in_field_of_a_tuple,
        in_what_a_function_makes,
        in_what_a_type_checked_function_makes,
        in_local_plate,
        in_decorated_function,
    ],
    ids=lambda cost: cost.__name__,
)
def test_context_managers_that_suppress_nothing_are_no_control_dependencies(cost, theta):
    assert trace(program_with(cost), theta).influences("x") == frozenset()


def by_local_guard(x):
    2 * x  # before there is a guard
    guard, paid = Guard(), 4.0
    with guard:
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    return paid


def by_field_of_a_tuple(x):
    managers, paid = Managers(pyro.plate("data", 3), Guard()), 4.0
    with managers.guard:
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    return paid


def suppressing():
    return contextlib.suppress(RuntimeError)


def by_what_a_function_makes(x):
    paid = 4.0
    with suppressing():
        torch.linalg.inv(x * IDENTITY)
        paid = 1.0
    return paid


def by_decorator(x):
    @swallowing()
    def invert():
        torch.linalg.inv(x * IDENTITY)
        return 1.0

    return invert() or 4.0


@pytest.mark.parametrize(
    "cost",
    [by_local_guard, by_field_of_a_tuple, by_what_a_function_makes, by_decorator],
    ids=lambda cost: cost.__name__,
)
def test_context_managers_that_suppress_errors_are_control_dependencies(cost, theta):
    assert "f" in trace(program_with(cost), theta, draw=lambda *_: torch.ones((), dtype=theta.dtype)).influences("x")


class Box:
    held = Guard()

    @property
    def guard(self):
        return Guard()

    def __getattr__(self, name):
        return Guard()

    def __getitem__(self, key):
        return Guard()


BOX, GUARDS, QUIET = Box(), [Guard()], functools.partial(contextlib.suppress, RuntimeError)


@pytest.mark.parametrize(
    "expression",
    [
        *("QUIET()", "GUARDS[0]", "{'k': GUARDS[0]}['k']", "BOX.guard", "BOX.other", "BOX['k']", "(lambda: Guard)()()"),
        *("BOX.held", "getattr(BOX, 'guard')", "GUARDS.copy().pop()", "functools.partial(QUIET)()"),
        *("(lambda cls: Guard())(pyro.plate)", "Guard() if BOX else pyro.plate('data', 2)", "globals()['BOX'].held"),
    ],
)
def test_undecidable_context_managers_count_as_suppressing(expression, theta):
    lines = [
        "def cost(x):",
        "    paid = 4.0",
        f"    with {expression}:",
        "        torch.linalg.cholesky((2 * x - 1) * IDENTITY)",
        "        paid = 1.0",
        "    return paid",
    ]
    namespace = {**globals()}
    exec("\n".join(lines), namespace)
    assert "f" in trace(program_with(namespace["cost"]), theta, draw=lambda *_: 1 + 0 * theta).influences("x")


LOCK, PLATES = threading.Lock(), {"data": pyro.plate("data", 3)}


@pytest.mark.parametrize(
    "expression",
    [
        *("LOCK", "threading.Lock()", "threading.RLock()", "pyro.plate('data', len(GUARDS))", "PLATES['data']"),
        *("torch.no_grad()", "contextlib.nullcontext()", "open(__file__)", "passing_on()", "poutine.scale(scale=1.0)"),
        *("torch.random.fork_rng(devices=[])", "warnings.catch_warnings()", "torch.autocast('cpu', enabled=False)"),
        *("pyro.plate('data', len(GUARDS)), poutine.scale(scale=1.0)", "LOCK, pyro.plate('data', len(GUARDS))"),
    ],
)
def test_usual_context_managers_pass_errors_on(expression, theta):
    namespace = {**globals()}
    exec(f"def cost(x):\n    with {expression}:\n        2 * x\n    return 1.0", namespace)
    assert trace(program_with(namespace["cost"]), theta).influences("x") == frozenset()


def entered(manager):
    with manager:
        return error_is_handled(sys._getframe())


def entered_if(manager):
    with manager if manager else contextlib.nullcontext():
        return error_is_handled(sys._getframe())


def is_handled(enter, manager):
    """Return ``error_is_handled`` where a traced program has entered a context manager."""
    seen = []

    def program(graph, theta):
        seen.append(enter(manager))
        graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", theta)

    trace(program, torch.tensor(0.7, requires_grad=True))
    return seen[0]


@pytest.mark.parametrize("enter", [entered, entered_if])
def test_context_manager_in_a_variable_is_checked_at_each_run(enter):
    managers = [torch.no_grad(), contextlib.suppress(ValueError), contextlib.nullcontext(), pyro.plate("data", 3)]
    assert [is_handled(enter, manager) for manager in managers] == [False, True, False, False]
    assert is_handled(enter, contextlib.suppress(ValueError))
