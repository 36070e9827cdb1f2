import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal, TransformedDistribution

from zoo.gradients.graphs._distributions import in_support
from zoo.gradients.graphs._provenance.names import quote_names

_TAIL = 9.0  # standard deviations of a Normal to integrate over; 2e-19 of its mass lies beyond


class Rule(NamedTuple):
    """Quadrature rule for each element of a continuous sample: nodes, and weights that include the density."""

    values: Tensor
    """``(nodes, *batch)``."""
    log_weights: Tensor
    """``(nodes, *batch)``; the weights sum to 1."""


class Quadrature:
    """Quadrature rules by name of the sample: Gauss–Hermite for a Normal, Gauss–Legendre over quantiles for others.

    With breakpoints, Gauss–Legendre is used on each piece between them. For a Normal it is over the values then, and
    the weights include the density. ``seen`` holds the names of the program's samples, for ``check_seen``.

    Example:
        >>> distribution = torch.distributions.Uniform(torch.tensor(-1.0), 1.0)
        >>> rule = Quadrature({"x": 2}, {"x": [0.0]}).rule("x", distribution)
        >>> (rule.values * rule.log_weights.exp()).abs().sum()  # 0.5, the mean of |x|
        tensor(0.5000)
    """

    def __init__(
        self,
        num_nodes: Mapping[str, int] | None = None,
        breakpoints: Mapping[str, Sequence[float]] | None = None,
    ):
        self.num_nodes = num_nodes or {}
        self.breakpoints = breakpoints or {}
        self.seen: set[str] = set()
        if missing := sorted(self.breakpoints.keys() - self.num_nodes.keys()):
            name = repr(missing[0])
            raise ValueError(f"breakpoints of {name} need a number of nodes too: quadrature={{{name}: 16}}")

    def rule(self, name: str, base: Distribution) -> Rule | None:
        """Return the rule for each element of a sample, detached; None if the sample is not to be integrated."""
        self.seen.add(name)
        if name not in self.num_nodes:
            return None
        what = f"sample {name!r} ({type(base).__name__})"
        if self.num_nodes[name] < 1:
            raise ValueError(f"quadrature needs at least one node for {name!r}, got {self.num_nodes[name]}")
        if base.event_shape:
            raise ValueError(f"the elements of {what} depend on each other: there is no quadrature for them")
        try:
            values, weights = _nodes_and_weights(name, base, self.num_nodes[name], self.breakpoints.get(name, ()))
        except NotImplementedError:
            raise ValueError(f"{what} has no quantile function in torch, and so no quadrature") from None
        return Rule(values.detach(), weights.log().detach())

    def check_seen(self) -> None:
        """Raise an error if the program has no sample of one of the names."""
        if unknown := self.num_nodes.keys() - self.seen:
            known = quote_names(self.seen)
            raise ValueError(f"there is no sample {quote_names(unknown)} to integrate; there are {known}")


def _nodes_and_weights(
    name: str, base: Distribution, num_nodes: int, breakpoints: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return nodes and weights, ``(nodes, *batch)``."""
    if isinstance(base, Normal) and not breakpoints:
        points, weights = _gauss_hermite(num_nodes)
        values = base.loc + base.scale * _expand_dims(points, base.loc)
        return values, _expand_dims(weights, values[0]).expand_as(values)
    points, weights = _gauss_legendre(num_nodes)
    breakpoints = sorted(set(breakpoints))
    quantiles = _quantile_edges(name, base, breakpoints)
    if isinstance(base, Normal):  # over values, since its quantile function is too steep in the tails
        values = _map_to_intervals(_normal_edges(base, breakpoints), points)
        density = _expand_dims(weights, quantiles) * base.log_prob(values).exp()
        weights = density / density.sum(0) * quantiles.diff(dim=0)
        return values.flatten(0, 1), weights.flatten(0, 1)
    weights = _expand_dims(weights, quantiles) * quantiles.diff(dim=0)
    return base.icdf(_map_to_intervals(quantiles, points).flatten(0, 1)), weights.flatten(0, 1)


def _map_to_intervals(edges: Tensor, points: Float[Tensor, " nodes"]) -> Tensor:
    """Map points of [-1, 1] into each interval between two edges: ``(nodes, intervals, *batch)``."""
    return edges[:-1] + _expand_dims((points + 1) / 2, edges) * edges.diff(dim=0)


def _normal_edges(base: Normal, breakpoints: Sequence[float]) -> Tensor:
    """Return the breakpoints between two values with negligible mass beyond, ``(2 + breakpoints, *batch)``."""
    inner = [torch.full_like(base.loc, value) for value in breakpoints]
    tail = _TAIL * base.scale
    return torch.stack([torch.minimum(base.loc, inner[0]) - tail, *inner, torch.maximum(base.loc, inner[-1]) + tail])


def _quantile_edges(name: str, base: Distribution, breakpoints: Sequence[float]) -> Tensor:
    """Return the cumulative probabilities of support and breakpoints, ``(2 + breakpoints, *batch)``."""
    innermost = base
    while isinstance(innermost, TransformedDistribution):  # this class does not implement the mean
        innermost = innermost.base_dist
    like = innermost.mean.expand(base.batch_shape)
    ends = _expand_dims(torch.tensor([0.0, 1.0], device="cpu"), like).expand(-1, *like.shape)
    if not breakpoints:
        return ends
    values = _expand_dims(torch.tensor(breakpoints, dtype=torch.float64, device="cpu"), like).expand(-1, *like.shape)
    inner = base.cdf(values) if in_support(base, values) else torch.zeros_like(values)
    if not bool(((inner > 0) & (inner < 1)).all()):
        raise ValueError(f"the breakpoints of {name!r} must lie within its support, got {list(breakpoints)}")
    return torch.cat([ends[:1], inner, ends[1:]])


@functools.lru_cache(maxsize=16)  # looked up for every outcome, and slow for many nodes
def _gauss_hermite(num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights for the standard normal distribution."""
    return _gauss_rule(torch.arange(1, num_nodes, dtype=torch.float64, device="cpu").sqrt())


@functools.lru_cache(maxsize=16)
def _gauss_legendre(num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights for the uniform distribution on [-1, 1]."""
    k = torch.arange(1, num_nodes, dtype=torch.float64, device="cpu")
    return _gauss_rule(k / (4 * k**2 - 1).sqrt())


def _gauss_rule(off_diagonal: Float[Tensor, " nodes_minus_1"]) -> tuple[Tensor, Tensor]:
    """Return nodes and weights (of sum 1) of a symmetric Gauss rule from its Jacobi matrix.

    Golub & Welsch, "Calculation of Gauss quadrature rules", 1969. NumPy's rules are not used, as ``zoo.gradients``
    depends on torch alone.
    """
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return nodes, vectors[0] ** 2


def _expand_dims(points: Float[Tensor, " points"], like: Tensor) -> Tensor:
    """Reshape points to broadcast along a new first dimension of ``like``, with its dtype and device."""
    return points.to(like).reshape(-1, *(1,) * like.ndim)
