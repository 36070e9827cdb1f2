"""Programs may call compiled functions; ``torch.compile`` leaves the tracing itself uncompiled."""

import importlib
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from torch.distributions import Bernoulli

from zoo.gradients.baselines import LeaveOneOutBaseline
from zoo.gradients.graphs import expected_cost, outcomes, trace
from zoo.gradients.testing import check_unbiased

pytestmark = pytest.mark.usefixtures("without_type_checks")


def program(graph, theta):
    x = graph.sample("x", Bernoulli(logits=theta))
    graph.cost("f", 3 * x + theta**2)


def traced(theta):
    return trace(program, 2 * theta).surrogate() * 2


def with_baseline(theta):
    return trace(program, theta, num_samples=3).surrogate({"x": LeaveOneOutBaseline(0)}, order=2)


def enumerated(theta):
    return expected_cost(program, 2 * theta) + theta


def outcome_by_outcome(theta):
    return torch.stack([outcome.log_prob.exp() * outcome.cost for outcome in outcomes(program, theta)]).sum()


FUNCTIONS = [traced, with_baseline, enumerated, outcome_by_outcome]


@pytest.mark.filterwarnings("ignore")  # of graph breaks
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_compiled_function_has_same_value_and_gradient(function):
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    results = []
    for call in (function, torch.compile(function, backend="eager")):
        torch.manual_seed(0)
        value = call(theta)
        results.append((value, *torch.autograd.grad(value, theta)))
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore")
def test_check_unbiased_may_be_compiled():
    def check(theta):
        return check_unbiased(lambda program, theta, draw: trace(program, theta, draw=draw).surrogate(), program, theta)

    assert torch.compile(check, backend="eager")(torch.tensor(0.7, dtype=torch.float64, requires_grad=True))


def test_compilation_is_disabled_until_the_last_thread_has_traced():
    of_compiler = importlib.import_module("torch._dynamo.eval_frame")
    first, second = threading.Event(), threading.Event()
    before, during = of_compiler._stance.stance, []

    def program(graph, theta, mine, other, waits):
        mine.set()
        assert other.wait(10)
        if waits is not None:
            waits.join()
        during.append(of_compiler._stance.stance)
        graph.cost("f", graph.sample("x", Bernoulli(logits=theta)))

    theta = torch.tensor(0.7, requires_grad=True)
    short = threading.Thread(target=trace, args=(program, theta, first, second, None))
    long = threading.Thread(target=trace, args=(program, theta, second, first, short))
    short.start()
    first.wait(10)
    long.start()
    long.join()
    assert during == ["force_eager", "force_eager"]
    assert of_compiler._stance.stance == before


@pytest.mark.parametrize(
    "function",
    [
        "lambda x: torch.cond(x > 0.5, lambda a: 3 * a, lambda a: 1 * a, (torch.ones(()),))",
        pytest.param(
            "lambda x: torch.compile(lambda a: a * x, backend='eager')(torch.ones(()))", marks=pytest.mark.slow
        ),
    ],
    ids=["cond", "compile"],
)
def test_program_that_loads_the_compiler_runs_uncompiled(function):
    code = f"""
        import sys, torch
        from torch.distributions import Bernoulli
        from zoo.gradients.graphs import trace

        function = {function}
        assert "torch._dynamo" not in sys.modules

        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta))
            graph.cost("f", function(x))

        assert trace(program, torch.tensor(0.7, requires_grad=True)).influences("x") == {{"f"}}
        assert torch._dynamo.eval_frame._stance.stance == "default"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
