import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from zoo.gradients.graphs.program import Program, Run, support_of, values_of

LIMIT = 100_000


class Outcome(NamedTuple):
    """One way in which a program can go."""

    values: Mapping[str, Tensor]
    """Of its variables, by name."""
    log_prob: Tensor
    """Of all of them together, ``(*batch)``, in nats and with its gradient."""
    cost: Tensor
    """Sum of all costs, ``(*batch)``, with its gradient."""


def expected_cost(
    program: Program,
    *args: Any,
    batch_dims: int = 0,
    quadrature: Mapping[str, int] | None = None,
    limit: int = LIMIT,
) -> Tensor:
    """Exact expectation of a program's costs, differentiable to any order: every outcome is enumerated.

    ``Σ_x p(x; θ) f(x, θ)`` over all outcomes ``x`` of the discrete variables.

    Args:
        program: see ``trace``.
        args: of the program.
        batch_dims: leading dimensions that are independent; their sum is given.
        quadrature: number of nodes for each continuous variable that may be integrated numerically: Gauss–Hermite for
            a Normal, Gauss–Legendre over the quantiles for others. Its density is differentiated, not the nodes.
        limit: most outcomes to go through.

    Returns:
        A scalar.

    Raises:
        ValueError: a variable is continuous and has no rule, or has infinitely many values; there are more outcomes
            than the limit; or as ``trace``.

    Example:
        >>> def program(graph, theta):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     graph.cost("f", (x - 0.45) ** 2)
        >>> expected_cost(program, torch.tensor(0.0))
        tensor(0.2525)
    """
    found = outcomes(program, *args, batch_dims=batch_dims, quadrature=quadrature, limit=limit)
    return torch.stack([(probability(outcome.log_prob) * outcome.cost).sum() for outcome in found]).sum()


def outcomes(
    program: Program,
    *args: Any,
    batch_dims: int = 0,
    quadrature: Mapping[str, int] | None = None,
    limit: int = LIMIT,
) -> Iterator[Outcome]:
    """Go through every possible outcome of a program, by running it again for each. See ``expected_cost``."""
    path: list[tuple[int, int]] = []
    for count in itertools.count(1):
        run = Replay(path, batch_dims, quadrature or {})
        try:
            run.execute(program, args)
        except ImpossibleError:
            pass
        else:
            check_limit(run, count, limit)
            log_prob = torch.stack([sample.log_prob for sample in run.samples.values()]).sum(0)
            cost = torch.stack([cost.value.to(log_prob.device) for cost in run.costs.values()]).sum(0)
            yield Outcome(values_of(run), log_prob, cost)
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1] = (path[-1][0] + 1, path[-1][1])


class ImpossibleError(Exception):
    """A variable has taken a value of probability 0: what would follow counts for nothing."""


class Replay(Run):
    """Runs a program along a path of outcomes, and takes the first outcome of whatever comes after it.

    Args:
        path: of each variable in turn, which of how many outcomes; continued in place.
        batch_dims: leading dimensions that are independent: all their elements take the same outcome at once.
        quadrature: see ``expected_cost``.
    """

    def __init__(self, path: list[tuple[int, int]], batch_dims: int, quadrature: Mapping[str, int]):
        super().__init__(batch_dims)
        self.path = path
        self.quadrature = quadrature
        self.log_weights: dict[str, Tensor] = {}

    def find(self, name: str, distribution: Distribution) -> tuple[Tensor, bool]:
        """Take the outcome that the path tells."""
        base = distribution
        while isinstance(base, Independent):
            base = base.base_dist
        support, log_weights = self.support(name, base)
        shape = base.batch_shape[self.batch_dims :]
        depth = len(self.samples)
        if depth == len(self.path):
            self.path.append((0, len(support) ** shape.numel()))
        digits = torch.tensor(digits_of(self.path[depth][0], len(support), shape.numel()), device=support.device)
        digits = digits.reshape(shape)
        self.log_weights[name] = log_weights[digits].sum()
        index = digits.reshape(1, *(1,) * self.batch_dims, *shape, *(1,) * len(base.event_shape))
        return support.gather(0, index.expand(1, *support.shape[1:])).squeeze(0).detach(), False

    def support(self, name: str, base: Distribution) -> tuple[Tensor, Tensor]:
        """All values of a variable's elements, ``(values, *batch, *event)``, and the log-weight of each in a sum."""
        if name in self.quadrature:
            return quadrature_rule(name, base, self.quadrature[name])
        try:
            values = base.enumerate_support()
        except NotImplementedError as error:
            support = support_of(base)
            what = f"sample {name!r} ({type(base).__name__})"
            if support is not None and support.is_discrete:
                raise ValueError(f"the values of {what} cannot be enumerated: {error or 'torch lists none'}") from None
            rule = f"quadrature={{{name!r}: 32}}"
            raise ValueError(f"{what} is continuous and cannot be enumerated; integrate it with {rule}") from None
        return values, values.new_zeros(len(values), dtype=torch.get_default_dtype())

    def log_weight(self, name: str, log_prob: Tensor) -> Tensor:
        """Keep the log-probability; of an integrated variable its gradient alone, beside the rule's own weight."""
        if name not in self.quadrature:
            return log_prob
        return log_prob - log_prob.detach() + self.log_weights[name]

    def possible(self, log_prob: Tensor) -> bool:
        """Tell whether a log-probability is a number or -∞, and give up where every element of the batch has that."""
        if bool(log_prob.isneginf().all()):
            raise ImpossibleError
        return not bool((log_prob.isnan() | log_prob.isposinf()).any())


def check_limit(run: Replay, count: int, limit: int) -> None:
    """Raise an error if a run, the ``count``-th, is one of too many."""
    sizes = dict(zip(run.samples, (size for _, size in run.path), strict=True))
    if (at_least := max(count, math.prod(sizes.values()))) > limit:
        factors = " · ".join(f"{readable(size)} ({name})" for name, size in sizes.items())
        raise ValueError(f"there are {readable(at_least)} outcomes or more: {factors}; the limit is {limit}")


def readable(count: int) -> str:
    """Write a number that may have more digits than anyone reads."""
    return str(count) if count < 10**12 else f"10^{math.log10(count):.0f}"


def quadrature_rule(name: str, base: Distribution, nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes for a continuous variable, ``(nodes, *batch)``, and their log-weights, which are those of its density."""
    if nodes < 1:
        raise ValueError(f"quadrature needs at least one node for {name!r}, got {nodes}")
    what = f"sample {name!r} ({type(base).__name__})"
    if base.event_shape:
        raise ValueError(f"the elements of {what} depend on each other: there is no quadrature for them")
    if isinstance(base, Normal):
        points, weights = gauss_rule(torch.arange(1, nodes, dtype=torch.float64).sqrt())  # Hermite
        return base.loc + base.scale * over(points, base.loc), weights.log().to(base.loc.dtype)
    k = torch.arange(1, nodes, dtype=torch.float64)
    points, weights = gauss_rule(k / (4 * k**2 - 1).sqrt())  # Legendre
    try:
        quantiles = base.icdf(over((points + 1) / 2, base.mean).expand(nodes, *base.batch_shape))
    except NotImplementedError:
        raise ValueError(f"{what} has no quantile function in torch, and so no quadrature") from None
    return quantiles, weights.log().to(quantiles.dtype)


def gauss_rule(off_diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights (of sum 1) of a symmetric Gauss rule from its Jacobi matrix.

    Golub & Welsch, "Calculation of Gauss quadrature rules", 1969.
    """
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return nodes, vectors[0] ** 2


def over(points: Tensor, like: Tensor) -> Tensor:
    """Lay points along a new first dimension of a tensor."""
    return points.to(like).reshape(-1, *(1,) * like.ndim)


def digits_of(index: int, base: int, count: int) -> list[int]:
    """Digits of a number, the lowest first."""
    digits = []
    for _ in range(count):
        index, digit = divmod(index, base)
        digits.append(digit)
    return digits


def probability(log_prob: Tensor) -> Tensor:
    """``exp``, with gradient 0 instead of NaN where the probability is 0."""
    impossible = log_prob.isneginf()
    return torch.where(impossible, 0.0, torch.where(impossible, 0.0, log_prob).exp())
