import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal, TransformedDistribution

from zoo.gradients.graphs._distributions import in_support
from zoo.gradients.graphs._provenance.names import quote_names

TAIL = 9.0
"""How many standard deviations of a normal law are not cut off; beyond are 2e-19 of it."""


class Rule(NamedTuple):
    """A weighted sum that stands for the expectation over a continuous variable, element by element."""

    values: Tensor
    """``(nodes, *batch)``."""
    log_weights: Tensor
    """``(nodes, *batch)``, of sum 1 before the logarithm; the density is in them."""


class Quadrature:
    """How continuous variables are integrated: Gauss–Hermite for a Normal, Gauss–Legendre over quantiles for others.

    With breakpoints it is Gauss–Legendre for all, on each piece between them; for a Normal over the values, with the
    density in the weights. Keeps the names that it was asked for, so that one which belongs to no variable can be
    told.

    Args:
        nodes: how many for each variable, by name; for each piece, if it has breakpoints.
        breakpoints: values of these variables at which what is integrated is not smooth.

    Raises:
        ValueError: a variable has breakpoints, but no number of nodes.

    Example:
        >>> law = torch.distributions.Uniform(torch.tensor(-1.0), 1.0)
        >>> rule = Quadrature({"x": 2}, {"x": [0.0]}).rule("x", law)
        >>> (rule.values * rule.log_weights.exp()).abs().sum()  # 0.5, the mean of |x|
        tensor(0.5000)
    """

    def __init__(
        self, nodes: Mapping[str, int] | None = None, breakpoints: Mapping[str, Sequence[float]] | None = None
    ):
        self.nodes = nodes or {}
        self.breakpoints = breakpoints or {}
        self.met: set[str] = set()
        if unruled := sorted(self.breakpoints.keys() - self.nodes.keys()):
            raise ValueError(
                f"breakpoints of {unruled[0]!r} need a number of nodes too: quadrature={{{unruled[0]!r}: 16}}"
            )

    def rule(self, name: str, base: Distribution) -> Rule | None:
        """Nodes and weights for each element of a variable, without gradients; None if it is not to be integrated."""
        self.met.add(name)
        if name not in self.nodes:
            return None
        what = f"sample {name!r} ({type(base).__name__})"
        if self.nodes[name] < 1:
            raise ValueError(f"quadrature needs at least one node for {name!r}, got {self.nodes[name]}")
        if base.event_shape:
            raise ValueError(f"the elements of {what} depend on each other: there is no quadrature for them")
        try:
            values, weights = nodes_and_weights(name, base, self.nodes[name], self.breakpoints.get(name, ()))
        except NotImplementedError:
            raise ValueError(f"{what} has no quantile function in torch, and so no quadrature") from None
        return Rule(values.detach(), weights.log().detach())

    def check_met(self) -> None:
        """Raise an error if a name belongs to no variable that was met."""
        if unknown := self.nodes.keys() - self.met:
            raise ValueError(
                f"there is no sample {quote_names(unknown)} to integrate; there are {quote_names(self.met)}"
            )


def nodes_and_weights(name: str, base: Distribution, nodes: int, breakpoints: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Choose the rule; nodes and weights are ``(nodes, *batch)``."""
    if isinstance(base, Normal) and not breakpoints:
        points, weights = gauss_hermite(nodes)
        values = base.loc + base.scale * over(points, base.loc)
        return values, over(weights, values[0]).expand_as(values)
    points, weights = gauss_legendre(nodes)
    breakpoints = sorted(set(breakpoints))
    quantiles = quantile_edges(name, base, breakpoints)
    if isinstance(base, Normal):  # its quantiles are too steep in the tails
        values = between(normal_edges(base, breakpoints), points)
        density = over(weights, quantiles) * base.log_prob(values).exp()
        shares = density / density.sum(0) * quantiles.diff(dim=0)
        return values.flatten(0, 1), shares.flatten(0, 1)
    shares = over(weights, quantiles) * quantiles.diff(dim=0)
    return base.icdf(between(quantiles, points).flatten(0, 1)), shares.flatten(0, 1)


def between(edges: Tensor, points: Float[Tensor, " nodes"]) -> Tensor:
    """Lay points of [-1, 1] into each piece between two edges: ``(nodes, pieces, *batch)``."""
    return edges[:-1] + over((points + 1) / 2, edges) * edges.diff(dim=0)


def normal_edges(base: Normal, breakpoints: Sequence[float]) -> Tensor:
    """Edges, ``(2 + breakpoints, *batch)``: breakpoints, and at both ends values with negligible mass beyond."""
    inner = [torch.full_like(base.loc, breakpoint_) for breakpoint_ in breakpoints]
    reach = TAIL * base.scale
    return torch.stack([torch.minimum(base.loc, inner[0]) - reach, *inner, torch.maximum(base.loc, inner[-1]) + reach])


def quantile_edges(name: str, base: Distribution, breakpoints: Sequence[float]) -> Tensor:
    """Cumulative probabilities at both ends of the support and at the breakpoints, ``(2 + breakpoints, *batch)``."""
    innermost = base
    while isinstance(innermost, TransformedDistribution):  # one with any transform need not know its own mean
        innermost = innermost.base_dist
    like = innermost.mean.expand(base.batch_shape)
    ends = over(torch.tensor([0.0, 1.0], device="cpu"), like).expand(-1, *like.shape)
    if not breakpoints:
        return ends
    values = over(torch.tensor(breakpoints, dtype=torch.float64, device="cpu"), like).expand(-1, *like.shape)
    inner = base.cdf(values) if in_support(base, values) else torch.zeros_like(values)
    if not bool(((inner > 0) & (inner < 1)).all()):
        raise ValueError(f"the breakpoints of {name!r} must lie within its support, got {list(breakpoints)}")
    return torch.cat([ends[:1], inner, ends[1:]])


@functools.lru_cache(maxsize=16)  # every outcome asks anew, and large rules take time
def gauss_hermite(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for the standard normal law."""
    return gauss_rule(torch.arange(1, nodes, dtype=torch.float64, device="cpu").sqrt())


@functools.lru_cache(maxsize=16)
def gauss_legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for the uniform law between -1 and 1."""
    k = torch.arange(1, nodes, dtype=torch.float64, device="cpu")
    return gauss_rule(k / (4 * k**2 - 1).sqrt())


def gauss_rule(off_diagonal: Float[Tensor, " nodes_minus_1"]) -> tuple[Tensor, Tensor]:
    """Nodes and weights (of sum 1) of a symmetric Gauss rule from its Jacobi matrix.

    Golub & Welsch, "Calculation of Gauss quadrature rules", 1969.
    """
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return nodes, vectors[0] ** 2


def over(points: Float[Tensor, " points"], like: Tensor) -> Tensor:
    """Lay points along a new first dimension of a tensor, with its dtype and device."""
    return points.to(like).reshape(-1, *(1,) * like.ndim)
