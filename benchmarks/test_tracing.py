"""What it costs to follow a program: against the same torch code with its surrogate written by hand."""

import torch
from torch.distributions import Bernoulli
from training import medians

from zoo.gradients import score_function_loss, trace

NODES, SIDE = 50, 100
BAR = 1.3


def chain(sample, cost, weight):
    """A chain of nodes, each drawn from the one before, with a cost at each."""
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


def test_both_give_the_same_gradient():
    weight = (torch.randn(SIDE, SIDE) / SIDE).requires_grad_()
    torch.manual_seed(0)
    ours = traced(weight)
    torch.manual_seed(0)
    torch.testing.assert_close(ours, by_hand(weight), rtol=1e-4, atol=1e-4)


def test_following_a_program_costs_little(measured):
    weight = (torch.randn(SIDE, SIDE) / SIDE).requires_grad_()
    ours, plain = medians(40, lambda: traced(weight), lambda: by_hand(weight))
    measured("a traced program, in units of the same code by hand", ours / plain)
    assert ours / plain <= BAR
