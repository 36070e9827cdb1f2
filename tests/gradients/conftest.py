"""Problems small enough to enumerate, and every kind of baseline.

Signals are laid out (time, sample, input).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from zoo.gradients import (
    Baseline,
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    SumBaseline,
)

settings.register_profile("gradients", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("gradients")

FEATURES = 3
SAMPLE_DIM = 1


class Draw(NamedTuple):
    """One outcome, as an estimator is given it."""

    log_prob: Tensor
    signal: Tensor
    context: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Enumeration:
    """Every outcome of all that a problem draws: what an expectation sums over."""

    parameters: Tensor
    log_probability: Tensor
    """Of each outcome, all its samples together."""
    objective: Tensor
    """What each outcome costs: the thing whose expectation is differentiated."""
    draws: list[Draw]

    @property
    def probability(self) -> Tensor:
        return self.log_probability.exp()

    def true_gradient(self) -> Tensor:
        """Of the expected cost, by differentiating the sum over outcomes."""
        expected = (self.probability * self.objective).sum()
        return torch.autograd.grad(expected, self.parameters, retain_graph=True)[0].flatten()

    def estimates(self, loss: Callable[[Draw], Tensor]) -> Tensor:
        """The gradient that each outcome's loss gives, (outcome, parameter)."""
        losses = torch.stack([loss(draw) for draw in self.draws])
        each = torch.eye(len(losses), dtype=losses.dtype)
        (gradients,) = torch.autograd.grad(losses, self.parameters, each, retain_graph=True, is_grads_batched=True)
        return gradients.reshape(len(losses), -1)

    def mean(self, loss: Callable[[Draw], Tensor]) -> Tensor:
        """Expectation of the estimated gradient."""
        return self.probability.detach() @ self.estimates(loss)

    def variance(self, loss: Callable[[Draw], Tensor]) -> Tensor:
        """Variance of the estimated gradient, summed over the parameters."""
        probability, estimates = self.probability.detach(), self.estimates(loss)
        return probability @ (estimates - probability @ estimates).square().sum(-1)


def every(choices: int, *shape: int) -> Tensor:
    """All arrays of that shape with entries below `choices`, stacked."""
    entries = itertools.product(range(choices), repeat=torch.Size(shape).numel())
    return torch.tensor(list(entries)).reshape(-1, *shape)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def independent_samples(
    parameters: Tensor, log_p: Tensor, cost: Tensor, samples: int, mask: Tensor | None = None
) -> Enumeration:
    """Draw each input's category independently: `log_p` and `cost` are (input, category).

    The context is made of the parameters, so that a baseline that does not cut the gradient is found out.
    """
    inputs, categories = log_p.shape
    x = every(categories, 1, samples, inputs)
    log_prob, signal = log_p[torch.arange(inputs), x], cost[torch.arange(inputs), x]
    weight = 1 if mask is None else mask
    context = torch.cat([log_p, log_p[:, :1].sin()], dim=-1).expand(1, samples, inputs, categories + 1)
    return Enumeration(
        parameters,
        log_prob.flatten(1).sum(1),
        (signal * weight).flatten(1).sum(1) / (samples * inputs),
        [Draw(*outcome, context, mask) for outcome in zip(log_prob, signal, strict=True)],
    )


@pytest.fixture
def enumerate_samples() -> Callable[..., Enumeration]:
    return independent_samples


@pytest.fixture
def one_step() -> Callable[..., Enumeration]:
    """Three samples for each of two inputs with a choice of two."""

    def make(mask: Tensor | None = None, differentiable_cost: bool = False) -> Enumeration:
        logits = normal(2, 2, seed=0).requires_grad_()
        cost = torch.tensor([[1.0, 4.0], [5.0, -2.0]], dtype=torch.float64)
        if differentiable_cost:
            cost = cost + normal(2, 2, seed=2) * logits**2
        return independent_samples(logits, logits.log_softmax(-1), cost, samples=3, mask=mask)

    return make


@pytest.fixture
def two_steps() -> Callable[..., Enumeration]:
    """Two samples of two choices of three, the second depending on the first; each step has its cost.

    ``credit``: what each step's log-probability is weighed with, the ``"total"`` cost (one number for both
    steps) or the cost ``"to go"``. ``ends``: a first choice of 0 ends the sample; its second step does not
    exist, and NaN stands there behind the mask.
    """

    def make(credit: str, ends: bool = False) -> Enumeration:
        logits = normal(4, 3, seed=3).requires_grad_()
        first, second = every(3, 2, 2, 1).unbind(1)
        log_p = logits.log_softmax(-1)
        log_prob = torch.stack([log_p[0][first], log_p[1:][first, second]], dim=1)
        cost = torch.stack([normal(3, seed=4)[first] + 2, 2 * normal(3, 3, seed=5)[first, second] + 1], dim=1)
        exists = torch.stack([torch.ones_like(first), first if ends else torch.ones_like(first)], dim=1) > 0
        to_go = (cost * exists).flip(1).cumsum(1).flip(1)
        signal = {"total": to_go[:, :1], "to go": to_go.where(exists, torch.nan)}[credit]
        state = torch.stack([torch.zeros_like(first), first], dim=1)
        context = nn.functional.one_hot(state, FEATURES).to(cost.dtype)
        outcomes = zip(log_prob.where(exists, torch.nan), signal, context, exists, strict=True)
        return Enumeration(
            logits,
            log_prob.flatten(1).sum(1),
            to_go[:, 0].flatten(1).mean(1),
            [Draw(*outcome) for outcome in outcomes],
        )

    return make


BASELINES: dict[str, Callable[[], Baseline]] = {
    "none": Baseline,
    "constant": lambda: ConstantBaseline(-0.75),
    "moving average": MovingAverageBaseline,
    "leave-one-out": lambda: LeaveOneOutBaseline(SAMPLE_DIM),
    "learned": lambda: LearnedBaseline(nn.Linear(FEATURES, 1)),
    "learned + leave-one-out": lambda: SumBaseline(
        LearnedBaseline(nn.Linear(FEATURES, 1)), LeaveOneOutBaseline(SAMPLE_DIM)
    ),
    "leave-one-out + learned": lambda: SumBaseline(
        LeaveOneOutBaseline(SAMPLE_DIM), LearnedBaseline(nn.Linear(FEATURES, 1))
    ),
    "moving average + learned": lambda: SumBaseline(MovingAverageBaseline(), LearnedBaseline(nn.Linear(FEATURES, 1))),
    "nested": lambda: SumBaseline(
        MovingAverageBaseline(),
        SumBaseline(LearnedBaseline(nn.Linear(FEATURES, 1)), LeaveOneOutBaseline(SAMPLE_DIM - 3)),
        ConstantBaseline(0.25),
    ),
}


@pytest.fixture(params=BASELINES)
def baseline(request) -> Baseline:
    """Each kind of baseline, in double precision, after it has learned from a first batch."""
    torch.manual_seed(0)
    baseline = BASELINES[request.param]().double()
    baseline(normal(2, 3, 2, seed=6) + 3, normal(2, 3, 2, FEATURES, seed=7))
    return baseline
