"""Programs with known gradients: the graphs of Schulman et al. 2015, and some whose dependencies are hard to track.

Each takes the parameters ``theta``, a vector; the expected sum of its costs has an exact gradient.
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from zoo.gradients.graphs import Outcome, StochasticGraph, expected_cost, outcomes, trace


def deterministic_then_stochastic(graph, theta):
    x = theta[0] ** 2
    y = graph.sample("y", Bernoulli(logits=x))
    graph.cost("f", 3 * y - 1)


def stochastic_then_deterministic(graph, theta):
    x = graph.sample("x", Bernoulli(logits=theta[0]))
    y = 2 * x - 0.5
    graph.cost("f", y**2)


def two_stochastic(graph, theta):
    x = graph.sample("x", Bernoulli(logits=theta[0]))
    y = graph.sample("y", Bernoulli(probs=0.2 + 0.6 * x))
    graph.cost("f", 4 * y)


def stochastic_and_deterministic(graph, theta):
    x = graph.sample("x", Bernoulli(logits=theta[0]))
    y = theta[0] ** 2
    graph.cost("f", x * y + y**2)


def two_costs(graph, theta, sign=-1.0):
    x1 = graph.sample("x1", Bernoulli(logits=theta[0] + 1))
    x2 = graph.sample("x2", Bernoulli(logits=theta[0] * x1))
    graph.cost("f1", 2 * x1)
    graph.cost("f2", sign * 3 * x2)


def two_costs_of_one_sign(graph, theta):
    two_costs(graph, theta, sign=1.0)


# With theta = 0.7.
SCHULMAN = {
    deterministic_then_stochastic: 0.989413,
    stochastic_then_deterministic: 0.443426,
    two_stochastic: 0.532111,
    stochastic_and_deterministic: 2.416102,
    two_costs: -0.367085,
    two_costs_of_one_sign: 0.889508,
}


def nvil_chain(graph, theta):
    """Three layers of two bits, a cost at each."""
    below = torch.tensor([1.0, 0.0], dtype=theta.dtype)
    for layer in (1, 2, 3):
        logits = theta[0] * below.flip(0) + theta[1] * layer - 0.3
        below = graph.sample(f"h{layer}", Bernoulli(logits=logits))
        graph.cost(f"r{layer}", ((below - theta[2]) ** 2).sum() * layer)


def pomdp(graph, theta):
    """Two actions that depend on a memory of observations of a hidden state."""
    memory, chance = theta.new_zeros(()), theta.new_tensor(0.4)
    for t in range(2):
        world = graph.sample(f"s{t}", Bernoulli(probs=chance))
        seen = graph.sample(f"o{t}", Bernoulli(probs=0.2 + 0.6 * world))
        memory = torch.tanh(theta[0] * memory + theta[1] * seen)
        action = graph.sample(f"a{t}", Bernoulli(logits=theta[2] * memory + 0.1))
        graph.cost(f"r{t}", (action - world) ** 2 + 0.1 * t * action)
        chance = 0.1 + 0.5 * world + 0.3 * action


def diamond(graph, theta):
    top = graph.sample("top", Categorical(logits=theta))
    left = graph.sample("left", Bernoulli(logits=theta[0] * top))
    right = graph.sample("right", Bernoulli(logits=theta[1] - top))
    graph.cost("f", (left + 2 * right - theta[2]) ** 2)


def two_parents(graph, theta):
    a = graph.sample("a", Bernoulli(logits=theta[0]))
    b = graph.sample("b", Bernoulli(logits=theta[1]))
    c = graph.sample("c", Categorical(logits=torch.stack([a, b, theta[2] * a * b])))
    graph.cost("f", (c - a) ** 2 + b)


def independent(graph, theta):
    a = graph.sample("a", Bernoulli(logits=theta[0]))
    b = graph.sample("b", Bernoulli(logits=theta[1]))
    graph.cost("fa", (a - 0.3) ** 2)
    graph.cost("fb", 5 * b)


def random_length(graph, theta):
    """Continues while a coin shows 1, at most four times."""
    total = theta.new_zeros(())
    for t in range(4):
        coin = graph.sample(f"coin{t}", Bernoulli(logits=theta[0] - 0.2 * t))
        total = total + coin * theta[1]
        if not coin:
            break
    graph.cost("length", (total - theta[2]) ** 2)


def recursion(graph, theta, name="n", depth=0):
    """The weight of a random binary tree."""
    weight = theta[1] ** (depth + 1)
    if depth < 2 and graph.sample(name, Bernoulli(logits=theta[0] - depth)).item() == 1:
        left, right = (recursion(graph, theta, name + side, depth + 1) for side in "lr")
        weight = weight + left * right
    if depth == 0:
        graph.cost("weight", weight)
    return weight


def branch(graph, theta):
    """A cost that depends on z through control flow alone."""
    z = graph.sample("z", Bernoulli(logits=theta[0]))
    mean = 2.0 if z.item() else -1.0
    graph.cost("f", (mean - 1 - theta[1]) ** 2)


def index(graph, theta):
    """A list and a dictionary are looked up by sampled values."""
    i = graph.sample("i", Categorical(logits=theta))
    j = graph.sample("j", Bernoulli(logits=theta[[2, 0, 1][i]]))
    graph.cost("f", {0: 1.0, 1: theta[1] ** 2}[int(j)])


def in_place(graph, theta):
    """Values reach the cost through in-place writes."""
    board = torch.zeros(4, dtype=theta.dtype)
    row = board[1:3]
    a = graph.sample("a", Bernoulli(logits=theta[0]))
    row[0] = a
    b = graph.sample("b", Bernoulli(logits=theta[1] + board.sum()))
    board.add_(b, alpha=2.0)
    graph.cost("f", (row * torch.arange(1, 3)).sum() ** 2)


HARD = [nvil_chain, pomdp, diamond, two_parents, independent, random_length, recursion, branch, index, in_place]
PROGRAMS = {program.__name__: program for program in [*SCHULMAN, *HARD]}


@pytest.fixture(params=SCHULMAN.items(), ids=lambda item: item[0].__name__)
def schulman(request) -> tuple[Callable, float]:
    """One of the five graphs (the last in two ways), and the gradient at 0.7 that is printed."""
    return request.param


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS)
def program(request) -> Callable:
    return request.param


@pytest.fixture
def programs() -> dict[str, Callable]:
    return PROGRAMS


@pytest.fixture
def theta() -> Tensor:
    return torch.tensor([0.7, -0.4, 0.3], dtype=torch.float64, requires_grad=True)


def replay(program, theta, together) -> StochasticGraph:
    """Trace a program on given outcomes, one for each run."""
    runs = iter(together)
    run: Outcome

    def begin(graph, theta):
        nonlocal run
        run = next(runs)
        program(graph, theta)

    return trace(begin, theta, num_samples=len(together), draw=lambda name, _: run.values[name])


@pytest.fixture(scope="session")
def replayed() -> Callable[..., Tensor]:
    """Expectation of a surrogate, by replaying every outcome; ``estimate`` returns it for a graph of ``runs`` runs."""

    def expectation(program, theta, estimate=lambda graph: graph.surrogate(), runs=1) -> Tensor:
        terms = []
        for together in itertools.product(list(outcomes(program, theta)), repeat=runs):
            probability = sum(outcome.log_prob for outcome in together).detach().exp()
            terms.append(probability * estimate(replay(program, theta, together)))
        return torch.stack(terms).sum()

    return expectation


def gradient(scalar: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(scalar, theta)[0]


@pytest.fixture(scope="session")
def bias(replayed) -> Callable[..., float]:
    """Largest absolute difference of the expected gradient from the gradient of the expected cost."""

    def error(program, theta, estimate=lambda graph: graph.surrogate(), runs=1) -> float:
        truth = gradient(expected_cost(program, theta), theta)
        return (gradient(replayed(program, theta, estimate, runs), theta) - truth).abs().max().item()

    return error


@pytest.fixture(scope="session")
def hessian() -> Callable[[Tensor, Tensor], Tensor]:
    """Second derivatives; 0 where the first ones are constant."""

    def second(scalar: Tensor, theta: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(scalar, theta, create_graph=True)
        rows = [torch.autograd.grad(d, theta, retain_graph=True)[0] if d.requires_grad else 0 * theta for d in first]
        return torch.stack(rows).detach()

    return second
