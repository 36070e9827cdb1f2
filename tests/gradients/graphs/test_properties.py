"""Random small programs: the expected gradient of the surrogate equals the oracle's."""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Categorical

from zoo.gradients.graphs import expected_cost, trace

pytestmark = pytest.mark.usefixtures("without_type_checks")  # for speed


class Node(NamedTuple):
    """A sample: its number of values, its parents among the earlier ones, and how it reads them."""

    values: int
    parents: frozenset[int]
    in_python: bool


class Recipe(NamedTuple):
    """A program with known influences: samples, and costs by the samples that each depends on."""

    nodes: tuple[Node, ...]
    costs: tuple[frozenset[int], ...]

    def __call__(self, graph, theta):
        drawn = []
        for i, node in enumerate(self.nodes):
            seen = sum(
                (self.read(drawn[j], node.in_python) * math.cos(i + 3 * j + 1) for j in sorted(node.parents)), 0.3
            )
            logits = theta * seen + torch.arange(3) * 0.2
            distribution = Bernoulli(logits=logits[i % 3]) if node.values == 2 else Categorical(logits=logits)
            drawn.append(graph.sample(f"x{i}", distribution))
        for c, subset in enumerate(self.costs):
            total = sum((drawn[j] * math.sin(c + 2 * j + 1) for j in sorted(subset)), theta[c % 3])
            graph.cost(f"f{c}", total**2 + c * theta.prod())

    def read(self, value, in_python):
        return value.item() if in_python else value

    def control_dependencies(self, before):
        """Samples that were read in Python before a node."""
        return frozenset().union(*(node.parents for node in self.nodes[:before] if node.in_python))

    def ancestors(self, parents):
        found = set(parents)
        for j in parents:
            found |= self.ancestors(self.nodes[j].parents | self.control_dependencies(j))
        return found

    def influences(self):
        """Names of the samples and costs that each sample influences."""
        lineages = {f"x{i}": self.ancestors(n.parents | self.control_dependencies(i)) for i, n in enumerate(self.nodes)}
        everywhere = self.control_dependencies(len(self.nodes))
        lineages |= {f"f{c}": self.ancestors(subset | everywhere) for c, subset in enumerate(self.costs)}
        return [{name for name, lineage in lineages.items() if i in lineage} for i in range(len(self.nodes))]


def subsets(below):
    return st.frozensets(st.integers(0, below - 1), max_size=below) if below else st.just(frozenset())


@st.composite
def recipes(draw):
    count = draw(st.integers(2, 4))
    values = st.sampled_from([2, 2, 3])
    nodes = tuple(Node(draw(values), draw(subsets(i)), draw(st.booleans())) for i in range(count))
    costs = tuple(draw(st.lists(subsets(count), min_size=1, max_size=3)))
    return Recipe(nodes, costs)


def parameters():
    return torch.tensor([0.7, -0.4, 0.3], dtype=torch.float64, requires_grad=True)


CHAIN = Recipe((Node(2, frozenset(), False), Node(3, frozenset({0}), True)), (frozenset({0}), frozenset({1})))
few = settings(max_examples=15)


@few
@given(recipe=recipes())
@example(recipe=CHAIN)
def test_influences_match_the_recipe(recipe):
    graph = trace(recipe, parameters())
    assert [graph.influences(f"x{i}") for i in range(len(recipe.nodes))] == recipe.influences()


@few
@given(recipe=recipes())
@example(recipe=CHAIN)
def test_surrogate_is_unbiased(replayed, hessian, recipe):
    theta = parameters()
    truth = expected_cost(recipe, theta)
    (exact,) = torch.autograd.grad(truth, theta, create_graph=True)
    (first,) = torch.autograd.grad(replayed(recipe, theta), theta)
    torch.testing.assert_close(first, exact.detach(), rtol=0, atol=1e-9)
    second_order = replayed(recipe, theta, lambda graph: graph.surrogate(order=2))
    torch.testing.assert_close(hessian(second_order, theta), hessian(truth, theta), rtol=0, atol=1e-9)


@few
@given(recipe=recipes(), seed=st.integers(0, 2**31), baseline=st.sampled_from([0.0, 1.5]))
@example(recipe=CHAIN, seed=0, baseline=1.5)
def test_gradient_for_fixed_samples_matches_the_formula(recipe, seed, baseline):
    """``Σ_c c + Σ_w log p(w) (Q_w - b_w)``, checked by finite differences; ``Q_w`` from the known influences."""
    torch.manual_seed(seed)
    theta = parameters()
    graph = trace(recipe, theta)
    names = [f"x{i}" for i in range(len(recipe.nodes))]
    signals = {
        name: sum(cost.item() for c, cost in graph.costs.items() if c in influenced) - baseline
        for name, influenced in zip(names, recipe.influences(), strict=True)
    }

    def formula(theta):
        (run,) = trace(recipe, theta, draw=lambda name, _: graph.samples[name]).runs
        scores = [run.samples[name].log_prob * signals[name] for name in names]
        return sum(scores) + sum(cost.value for cost in run.costs.values())

    assert torch.autograd.gradcheck(formula, theta)
    (expected,) = torch.autograd.grad(formula(theta), theta)
    for order in (1, 2):
        surrogate = graph.surrogate(dict.fromkeys(names, baseline), order)
        (estimate,) = torch.autograd.grad(surrogate, theta, retain_graph=True)
        torch.testing.assert_close(estimate, expected, rtol=0, atol=1e-9)
