from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution

from zoo.gradients._compilation import uncompilable
from zoo.gradients._tensors import at_least_single
from zoo.gradients.graphs._distributions import is_point_mass, support_of
from zoo.gradients.graphs._paths import DeadEndError, Path, enumerate_paths
from zoo.gradients.graphs._quadrature import Quadrature
from zoo.gradients.graphs.program import Program, Run, sum_to, values_of

MAX_OUTCOMES = 100_000
NOT_REPEATABLE = (
    "the program is not deterministic given the values of its samples: what is random in it must be drawn with "
    "graph.sample, or before the program is called, and it must keep no state, nor may other threads draw from the "
    "global generators meanwhile"
)


class Outcome(NamedTuple):
    """One way in which a program can go."""

    values: Mapping[str, Tensor]
    """Of its variables, by name."""
    log_prob: Tensor
    """Of all of them together, ``(*batch)``, in nats and with its gradient."""
    cost: Tensor
    """Sum of all costs, ``(*batch)``, with its gradient."""


@uncompilable
def expected_cost(
    program: Program,
    *args: Any,
    batch_dims: int = 0,
    quadrature: Mapping[str, int] | None = None,
    breakpoints: Mapping[str, Sequence[float]] | None = None,
    max_outcomes: int = MAX_OUTCOMES,
) -> Tensor:
    """Exact expectation of a program's costs, differentiable to any order: every outcome is enumerated.

    ``Σ_x p(x; θ) f(x, θ)`` over all outcomes ``x`` of the discrete variables. Each run is followed as by ``trace``, in
    the same threads.

    Args:
        program: see ``trace``.
        args: of the program.
        batch_dims: leading dimensions that are independent; their sum is given.
        quadrature: number of nodes for each continuous variable that may be integrated numerically: Gauss–Hermite for
            a Normal, Gauss–Legendre over the quantiles for others. Its density is differentiated, not the nodes.
        breakpoints: values of such variables at which the costs, or what else is made of them, are not smooth. Their
            quadrature, Gauss–Legendre for a Normal too, is split there; each piece has that number of nodes.
        max_outcomes: most outcomes to go through, those of probability 0 included.

    Returns:
        A scalar.

    Raises:
        ValueError: a variable is continuous and has no rule, or has infinitely many values; there are more than
            ``max_outcomes``, or so it looks after some hundred; the program does not repeat itself, as far as two runs
            of the first and of the last outcome and the global generators of torch, NumPy and Python tell (which all
            threads share, so that none may draw from them meanwhile); the probabilities do not sum to 1; there is no
            variable of a name in ``quadrature``, or a breakpoint outside the support; or as ``trace``.

    Example:
        >>> def program(graph, theta):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     graph.cost("f", (x - 0.45) ** 2)
        >>> expected_cost(program, torch.tensor(0.0))
        tensor(0.2525)
    """
    return expectation(
        outcomes(
            program,
            *args,
            batch_dims=batch_dims,
            quadrature=quadrature,
            breakpoints=breakpoints,
            max_outcomes=max_outcomes,
        )
    )


def outcomes(
    program: Program,
    *args: Any,
    batch_dims: int = 0,
    quadrature: Mapping[str, int] | None = None,
    breakpoints: Mapping[str, Sequence[float]] | None = None,
    max_outcomes: int = MAX_OUTCOMES,
) -> Iterator[Outcome]:
    """Go through every possible outcome of a program, by running it again for each.

    Args:
        program: see ``trace``.
        args: of the program.
        batch_dims: as in ``expected_cost``; all elements of a batch take the same outcome at once.
        quadrature: as in ``expected_cost``; the outcomes of an integrated variable are the rule's nodes, and its
            log-probability has the value of the rule's log-weight and the gradient of the log-density.
        breakpoints: as in ``expected_cost``.
        max_outcomes: as in ``expected_cost``.

    Raises:
        ValueError: as ``expected_cost``, once the outcome is reached.

    Example:
        >>> def program(graph):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(torch.tensor(0.75)))
        ...     graph.cost("f", 4 * x)
        >>> [(one.values["x"].item(), one.log_prob.exp().item(), one.cost.item()) for one in outcomes(program)]
        [(0.0, 0.25, 0.0), (1.0, 0.75, 4.0)]
    """
    rules = Quadrature(quadrature, breakpoints)
    yield from enumerate_outcomes(rules, program, args, batch_dims, max_outcomes)
    rules.check_met()


def enumerate_outcomes(
    rules: Quadrature, program: Program, args: tuple[Any, ...], batch_dims: int, max_outcomes: int
) -> Iterator[Outcome]:
    """Go through every possible outcome, when it is known how to integrate."""

    def outcome(path: Path) -> Outcome:
        run = Replay(path, batch_dims, rules)
        run.execute(program, args)
        log_prob, *others = (sample.log_prob for sample in run.samples.values())
        costs = [cost.value.to(log_prob.device) for cost in run.costs.values()]
        log_probs = [log_prob, *(other.to(log_prob.device) for other in others)]
        return Outcome(values_of(run), torch.stack(log_probs).sum(0), torch.stack(costs).sum(0))

    total, eps = None, 0.0
    for one in enumerate_paths(outcome, max_outcomes, NOT_REPEATABLE, same=same_outcome):
        log_prob = one.log_prob.detach()
        eps = torch.finfo(log_prob.dtype).eps
        here = probability(log_prob.to(at_least_single(log_prob.dtype, log_prob.device)))
        total = here if total is None else total + here.to(total.device)
        yield one
    if total is not None:  # else all is impossible, and that is said elsewhere
        check_total(total, eps)


def same_outcome(one: Outcome, other: Outcome) -> bool:
    """Tell whether two runs along one path have come to the same."""
    pairs = [(one.log_prob, other.log_prob), (one.cost, other.cost)]
    return all(torch.allclose(first.detach(), again.detach(), equal_nan=True) for first, again in pairs)


def check_total(total: Tensor, eps: float) -> None:
    """Raise an error if probabilities, known up to ``eps``, do not sum to 1 in each element of the batch."""
    tolerance = max(1e-4, 10 * eps)
    if not bool(((total - 1).abs() < tolerance).all()):
        worst = total.flatten()[(total - 1).abs().argmax()]
        raise ValueError(
            f"the probabilities of all outcomes sum to {worst:.6g}, not to 1: a distribution's log_prob is not that of "
            "the values it enumerates, as if it were masked, or it does not enumerate all"
        )


def expectation(outcomes: Iterable[Outcome]) -> Tensor:
    """Sum of the costs, weighed with their probabilities, over outcomes and batch.

    Where log-probabilities have less precision than the costs, these are compared with one of them: what flows back
    would otherwise be rounded before what large costs have in common cancels.
    """
    outcomes = list(outcomes)
    if not any(as_precise(outcome.log_prob, outcome.cost) is not outcome.log_prob for outcome in outcomes):
        return torch.stack([(probability(outcome.log_prob) * outcome.cost).sum() for outcome in outcomes]).sum()
    shift = outcomes[0].cost.detach()
    terms = [(probability(as_precise(one.log_prob, one.cost)) * (one.cost - shift)).sum() for one in outcomes]
    return torch.stack(terms).sum() + shift.sum()


def as_precise(one: Tensor, other: Tensor) -> Tensor:
    """Convert a tensor to the precision of another; the same tensor if it has that already."""
    return one.to(torch.promote_types(one.dtype, other.dtype))


class Replay(Run):
    """Runs a program along a path of outcomes.

    Args:
        path: tells which outcome each variable takes.
        batch_dims: leading dimensions that are independent: all their elements take the same outcome at once.
        rules: of the variables that are integrated.
    """

    def __init__(self, path: Path, batch_dims: int, rules: Quadrature):
        super().__init__(batch_dims)
        self.path = path
        self.rules = rules
        self.log_weights: dict[str, Tensor] = {}

    def find(self, name: str, distribution: Distribution) -> tuple[Tensor, bool]:
        """Take the outcome that the path tells."""
        base = base_distribution(distribution)
        rule = self.rules.rule(name, base)
        if rule is None and is_point_mass(base):
            self.path.choose(name, 1)
            return base.mean, True  # which is all of the expectation, parameters included
        values = enumerate_values(name, base) if rule is None else rule.values
        each, shape = len(values), base.batch_shape[self.batch_dims :]
        taken = self.path.choose(name, each ** shape.numel())
        digits = taken // each ** torch.arange(shape.numel(), device=values.device) % each
        index = digits.reshape(shape).expand(1, *base.batch_shape)
        if rule is not None:
            self.log_weights[name] = sum_to(self.batch_dims, rule.log_weights.gather(0, index).squeeze(0))
        index = index[(..., *[None] * len(base.event_shape))].expand(1, *values.shape[1:])
        return values.gather(0, index).squeeze(0).detach(), False

    def log_weight(self, name: str, log_prob: Tensor) -> Tensor:
        """Keep the log-probability; of an integrated variable its gradient alone, beside the rule's own weight."""
        if name not in self.log_weights:
            return log_prob
        return log_prob - log_prob.detach() + self.log_weights[name]

    def possible(self, log_prob: Tensor) -> bool:
        """Tell whether a log-probability is a number or -∞, and give up where every element of the batch has that."""
        if log_prob.numel() and bool(log_prob.isneginf().all()):
            raise DeadEndError
        return not bool((log_prob.isnan() | log_prob.isposinf()).any())


def base_distribution(distribution: Distribution) -> Distribution:
    """Distribution of the elements, where they are independent of each other."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def enumerate_values(name: str, base: Distribution) -> Tensor:
    """All values of each element of a discrete variable, ``(values, *batch, *event)``."""
    try:
        return base.enumerate_support()
    except NotImplementedError as error:
        if is_point_mass(base):
            return base.mean[None].detach()
        what = f"sample {name!r} ({type(base).__name__})"
        if is_discrete(base):
            raise ValueError(f"the values of {what} cannot be enumerated: {str(error) or 'torch lists none'}") from None
        rule = f"quadrature={{{name!r}: 32}}"
        raise ValueError(f"{what} is continuous and cannot be enumerated; integrate it with {rule}") from None


def is_discrete(distribution: Distribution) -> bool:
    """Tell whether a distribution has single values; where it does not know, it has none."""
    while isinstance(distribution, TransformedDistribution):  # its support tells of the transform alone
        distribution = base_distribution(distribution.base_dist)
    support = support_of(distribution)
    return support is not None and support.is_discrete


def probability(log_prob: Tensor) -> Tensor:
    """``exp``, with gradient 0 instead of NaN where the probability is 0."""
    impossible = log_prob.isneginf()
    return torch.where(impossible, 0.0, torch.where(impossible, 0.0, log_prob).exp())
