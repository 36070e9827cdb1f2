from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from zoo.gradients._compilation import uncompilable
from zoo.gradients._tensors import at_least_float32
from zoo.gradients.graphs._distributions import base_distribution, is_point_mass, support_of
from zoo.gradients.graphs._paths import DeadEndError, Path, enumerate_paths
from zoo.gradients.graphs._quadrature import Quadrature
from zoo.gradients.graphs._run import Run, sum_event_dims
from zoo.gradients.graphs.program import Program

MAX_OUTCOMES = 100_000
_NOT_REPEATABLE = (
    "the program is not deterministic given the values of its samples: draw all random numbers with graph.sample, or "
    "before the program is called; keep no state between calls; and let no other thread draw from the global random "
    "number generators meanwhile"
)


class Outcome(NamedTuple):
    """One possible outcome of a program, from ``outcomes``.

    Example:
        >>> from zoo.gradients.graphs import outcomes
        >>> def program(graph):
        ...     graph.cost("f", 4 * graph.sample("x", torch.distributions.Bernoulli(torch.tensor(0.75))))
        >>> outcome, _ = outcomes(program)
        >>> outcome.values, outcome.log_prob.exp(), outcome.cost
        ({'x': tensor(0.)}, tensor(0.2500), tensor(0.))
    """

    values: Mapping[str, Tensor]
    """Samples by name."""
    log_prob: Tensor
    """Joint log-probability, ``(*batch)``, with its gradient."""
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
    """Return the exact expectation of a program's costs, differentiable to any order, by enumeration of all outcomes.

    It is the scalar ``Σ_x p(x; θ) f(x, θ)`` over all outcomes ``x`` of the discrete samples.

    Args:
        program: see ``trace``.
        args: arguments of the program.
        batch_dims: number of leading dimensions that are independent; their sum is returned.
        quadrature: number of nodes for each continuous sample to integrate: Gauss–Hermite for a Normal, Gauss–Legendre
            over the quantiles for others. The density is differentiated, not the nodes.
        breakpoints: values of such samples at which the costs, or distributions that depend on them, are not smooth.
            Gauss–Legendre quadrature is then used, even for a Normal, with the number of nodes in ``quadrature`` on
            each piece.
        max_outcomes: maximum number of outcomes, including those of probability 0.

    Raises:
        ValueError: a sample is continuous without quadrature, or has infinitely many values; there are more outcomes
            than ``max_outcomes``, or, as estimated after a few hundred of them, there will be; the program is not
            deterministic given its samples: a second run of the first or the last outcome differs, or a number was
            drawn from a global generator of torch, NumPy or Python (which other threads must not use meanwhile); the
            probabilities do not sum to 1; a name in ``quadrature`` is not that of a sample; a breakpoint lies outside
            the support; or as ``trace``.

    Example:
        >>> import torch
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
    """Yield every possible outcome of a program, by running it once for each.

    The arguments are those of ``expected_cost``; all elements of a batch share an outcome. The outcomes of an
    integrated sample are its quadrature nodes; its log-probability has the value of a node's log-weight and the
    gradient of the log-density.

    Raises:
        ValueError: as ``expected_cost``, once the outcome is reached.

    Example:
        >>> import torch
        >>> def program(graph):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(torch.tensor(0.75)))
        ...     graph.cost("f", 4 * x)
        >>> [(one.values["x"].item(), one.log_prob.exp().item(), one.cost.item()) for one in outcomes(program)]
        [(0.0, 0.25, 0.0), (1.0, 0.75, 4.0)]
    """
    rules = Quadrature(quadrature, breakpoints)
    yield from enumerate_outcomes(rules, program, args, batch_dims, max_outcomes)
    rules.check_seen()


def enumerate_outcomes(
    rules: Quadrature, program: Program, args: tuple[Any, ...], batch_dims: int, max_outcomes: int
) -> Iterator[Outcome]:
    """Yield every possible outcome of a program; raise an error if their probabilities do not sum to 1."""

    def outcome(path: Path) -> Outcome:
        run = _ReplayedRun(path, batch_dims, rules)
        run.execute(program, args)
        log_prob, *others = (sample.log_prob for sample in run.samples.values())
        costs = [cost.value.to(log_prob.device) for cost in run.costs.values()]
        log_probs = [log_prob, *(other.to(log_prob.device) for other in others)]
        return Outcome(run.values(), torch.stack(log_probs).sum(0), torch.stack(costs).sum(0))

    total, eps = None, 0.0
    for one in enumerate_paths(outcome, max_outcomes, _NOT_REPEATABLE, same=_same_outcome):
        log_prob = one.log_prob.detach()
        eps = torch.finfo(log_prob.dtype).eps
        probability = _probability(log_prob.to(at_least_float32(log_prob.dtype, log_prob.device)))
        total = probability if total is None else total + probability.to(total.device)
        yield one
    if total is not None:  # if no outcome is possible, another error is raised
        _check_total(total, eps)


def expectation(outcomes: Iterable[Outcome]) -> Tensor:
    """Return the sum of the costs, weighted by their probabilities, over outcomes and batch.

    If log-probabilities are less precise than the costs, the first cost is subtracted from all costs and added to the
    sum. Without this, the part that all costs share, which cancels in the gradient, would leave a rounding error.
    """
    outcomes = list(outcomes)
    if not any(_as_precise(outcome.log_prob, outcome.cost) is not outcome.log_prob for outcome in outcomes):
        return torch.stack([(_probability(outcome.log_prob) * outcome.cost).sum() for outcome in outcomes]).sum()
    shift = outcomes[0].cost.detach()
    terms = [(_probability(_as_precise(one.log_prob, one.cost)) * (one.cost - shift)).sum() for one in outcomes]
    return torch.stack(terms).sum() + shift.sum()


class _ReplayedRun(Run):
    """Run of a program along a path of outcomes, which all elements of the batch share."""

    def __init__(self, path: Path, batch_dims: int, rules: Quadrature):
        super().__init__(batch_dims)
        self.path = path
        self.rules = rules
        self.log_weights: dict[str, Tensor] = {}

    def draw_value(self, name: str, distribution: Distribution) -> tuple[Tensor, bool]:
        base = base_distribution(distribution)
        rule = self.rules.rule(name, base)
        if rule is None and is_point_mass(base):
            self.path.choose(name, 1)
            return base.mean, True  # its only value, with the gradient of its parameters
        values = enumerate_values(name, base) if rule is None else rule.values
        size, shape = len(values), base.batch_shape[self.batch_dims :]
        taken = self.path.choose(name, size ** shape.numel())
        # The number of the branch, written in base ``size``, has a digit for each element: the index of its value.
        digits = taken // size ** torch.arange(shape.numel(), device=values.device) % size
        index = digits.reshape(shape).expand(1, *base.batch_shape)
        if rule is not None:
            self.log_weights[name] = sum_event_dims(self.batch_dims, rule.log_weights.gather(0, index).squeeze(0))
        index = index[(..., *[None] * len(base.event_shape))].expand(1, *values.shape[1:])
        return values.gather(0, index).squeeze(0).detach(), False

    def weighted_log_prob(self, name: str, log_prob: Tensor) -> Tensor:
        if name not in self.log_weights:
            return log_prob
        return log_prob - log_prob.detach() + self.log_weights[name]

    def log_prob_is_valid(self, log_prob: Tensor) -> bool:
        """Return whether a log-probability is finite or -∞; abandon the path if it is -∞ in the whole batch."""
        if log_prob.numel() and bool(log_prob.isneginf().all()):
            raise DeadEndError
        return not bool((log_prob.isnan() | log_prob.isposinf()).any())


def enumerate_values(name: str, base: Distribution) -> Tensor:
    """Return all values of each element of a discrete sample, ``(values, *batch, *event)``."""
    try:
        return base.enumerate_support()
    except NotImplementedError as error:
        if is_point_mass(base):
            return base.mean[None].detach()
        what = f"sample {name!r} ({type(base).__name__})"
        if _is_discrete(base):
            problem = str(error) or "it does not implement enumerate_support"
            raise ValueError(f"the values of {what} cannot be enumerated: {problem}") from None
        rule = f"quadrature={{{name!r}: 32}}"
        raise ValueError(f"{what} is continuous and cannot be enumerated; integrate it with {rule}") from None


def _is_discrete(distribution: Distribution) -> bool:
    # The support of a transformed distribution is the codomain of its transform, even if its values are discrete.
    while isinstance(distribution, TransformedDistribution):
        distribution = base_distribution(distribution.base_dist)
    support = support_of(distribution)
    return support is not None and support.is_discrete


def _same_outcome(one: Outcome, other: Outcome) -> bool:
    pairs = [(one.log_prob, other.log_prob), (one.cost, other.cost)]
    return all(torch.allclose(first.detach(), again.detach(), equal_nan=True) for first, again in pairs)


def _check_total(total: Tensor, eps: float) -> None:
    """Raise an error if probabilities of precision ``eps`` do not sum to 1 in each element of the batch."""
    tolerance = max(1e-4, 10 * eps)
    if not bool(((total - 1).abs() < tolerance).all()):
        worst = total.flatten()[(total - 1).abs().argmax()]
        raise ValueError(
            f"the probabilities of all outcomes sum to {worst:.6g}, not to 1: a distribution's log_prob does not match "
            "its enumerate_support, for example because it is masked or values are missing"
        )


def _as_precise(one: Tensor, other: Tensor) -> Tensor:
    """Convert a tensor to at least the precision of another; return the same object if it has this precision."""
    return one.to(torch.promote_types(one.dtype, other.dtype))


def _probability(log_prob: Tensor) -> Tensor:
    """Return ``exp(log_prob)``, with gradient 0 instead of NaN where the probability is 0."""
    impossible = log_prob.isneginf()
    return torch.where(impossible, 0.0, torch.where(impossible, 0.0, log_prob).exp())
