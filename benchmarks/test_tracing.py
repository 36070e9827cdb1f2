"""Overhead of ``trace``, compared with the same torch code and a surrogate written by hand."""

import torch
from torch.distributions import Bernoulli
from training import medians

from zoo.gradients import score_function_loss, trace

NODES, SIDE = 50, 100
MAX_RATIO = 1.3


def chain(sample, cost, weight):
    """Sample a chain of nodes, each conditional on the previous one, with a cost for each."""
    x = torch.zeros(SIDE, SIDE)
    for t in range(NODES):
        hidden = torch.tanh(x @ weight + 0.1)
        x = sample(f"x{t}", Bernoulli(logits=hidden @ weight))
        cost(f"f{t}", (x - 0.3).square().mean())


def traced(weight):
    graph = trace(lambda graph, weight: chain(graph.sample, graph.cost, weight), weight)
    (gradient,) = torch.autograd.grad(graph.surrogate(), weight)
    return gradient


def by_hand(weight):
    log_probs, costs = [], []

    def sample(name, distribution):
        value = distribution.sample()
        log_probs.append(distribution.log_prob(value).sum())
        return value

    chain(sample, lambda name, value: costs.append(value), weight)
    to_go = torch.stack(costs).detach().flip(0).cumsum(0).flip(0)
    surrogate = score_function_loss(torch.stack(log_probs), to_go).sum() + torch.stack(costs).sum()
    (gradient,) = torch.autograd.grad(surrogate, weight)
    return gradient


def test_traced_and_hand_written_surrogate_have_the_same_gradient():
    weight = (torch.randn(SIDE, SIDE) / SIDE).requires_grad_()
    torch.manual_seed(0)
    ours = traced(weight)
    torch.manual_seed(0)
    torch.testing.assert_close(ours, by_hand(weight), rtol=1e-4, atol=1e-4)


def test_tracing_has_a_small_overhead(measured):
    weight = (torch.randn(SIDE, SIDE) / SIDE).requires_grad_()
    ours, plain = medians(40, lambda: traced(weight), lambda: by_hand(weight))
    measured("a traced program, in units of the same code by hand", ours / plain)
    assert ours / plain <= MAX_RATIO
