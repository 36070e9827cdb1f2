"""Baselines that depend on what they are subtracted from raise an error, however they got it."""

import pytest
import torch
from torch.distributions import Bernoulli

from zoo.gradients import BaselineWithContext, LearnedBaseline
from zoo.gradients.graphs import trace

pytestmark = pytest.mark.usefixtures("without_type_checks")


@pytest.fixture
def theta():
    return torch.tensor(0.7, dtype=torch.float64, requires_grad=True)


def traced(theta, num_samples):
    """A graph, and the values that its program stored elsewhere."""
    left = {}

    def program(graph, theta):
        z = graph.sample("z", Bernoulli(logits=theta - 1))
        x = graph.sample("x", Bernoulli(logits=theta))
        left["cost"], left["z"] = (3 * x + z).detach(), z
        graph.cost("f", 3 * x + theta**2 + z)
        graph.cost("of z", 2 * z)

    return trace(program, theta, num_samples=num_samples), left


KNOWING = {
    "cost": lambda graph, left: lambda values: graph.costs["f"].detach(),
    "cost_itself": lambda graph, left: graph.costs["f"].detach(),
    "data_of_a_cost": lambda graph, left: lambda values: graph.costs["f"].data,
    "half_of_a_cost": lambda graph, left: lambda values: 0.5 * graph.costs["f"].detach(),
    "sum_of_costs": lambda graph, left: lambda values: torch.stack(list(graph.costs.values())).sum().detach(),
    "number": lambda graph, left: lambda values: graph.costs["f"].item(),
    "array": lambda graph, left: lambda values: torch.tensor(graph.costs["f"].detach().numpy()),
    "cost_of_a_run": lambda graph, left: lambda values: graph.runs[-1].costs["f"].value.detach(),
    "sample": lambda graph, left: lambda values: graph.samples["x"],
    "log_prob": lambda graph, left: lambda values: graph.runs[0].samples["x"].log_prob.detach(),
    "surrogate": lambda graph, left: lambda values: graph.surrogate().detach(),
    "left_by_the_program": lambda graph, left: lambda values: left["cost"],
    "left_by_the_program_itself": lambda graph, left: left["cost"],
    "context": lambda graph, left: BaselineWithContext(
        LearnedBaseline(torch.nn.Linear(1, 1).double()), lambda values: graph.costs["f"].detach().reshape(1)
    ),
}


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("make", KNOWING.values(), ids=KNOWING)
def test_baseline_that_depends_on_its_own_cost_raises_an_error(make, num_samples, theta):
    graph, left = traced(theta, num_samples)
    with pytest.raises(ValueError, match="the baseline of 'x' uses 'x' itself: the gradient would be biased"):
        graph.surrogate({"x": make(graph, left)})


FREE = {
    "cost_that_is_not_influenced": lambda graph, left: lambda values: graph.costs["of z"].detach(),
    "other_sample_left_by_the_program": lambda graph, left: lambda values: left["z"],
    "tensor_from_before": lambda graph, left: lambda values: BEFORE,
    "number": lambda graph, left: 2.0,
}
BEFORE = torch.tensor(2.0, dtype=torch.float64)


@pytest.mark.parametrize("make", FREE.values(), ids=FREE)
def test_baseline_independent_of_its_sample_is_accepted(make, theta):
    graph, left = traced(theta, 1)
    surrogate = graph.surrogate({"x": make(graph, left)})
    assert torch.isclose(surrogate, sum(graph.costs.values()))  # shifted, so that its value is the cost
