from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from zoo.gradients._compilation import uncompilable
from zoo.gradients.graphs._quadrature import Quadrature
from zoo.gradients.graphs._replay import MAX_OUTCOMES, Outcome, enumerate_outcomes, expectation
from zoo.gradients.graphs.program import Program


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

    ``Σ_x p(x; θ) f(x, θ)`` over all outcomes ``x`` of the discrete samples, a scalar.

    Args:
        program: see ``trace``.
        args: arguments of the program.
        batch_dims: number of leading dimensions that are independent; their sum is returned.
        quadrature: number of nodes for each continuous sample to integrate: Gauss–Hermite for a Normal, Gauss–Legendre
            over the quantiles for others. The density is differentiated, not the nodes.
        breakpoints: values of such samples at which the costs, or distributions that depend on them, are not smooth.
            Gauss–Legendre quadrature, for a Normal too, with this number of nodes on each piece.
        max_outcomes: maximum number of outcomes, those of probability 0 included.

    Raises:
        ValueError: a sample is continuous without quadrature, or has infinitely many values; there are more outcomes
            than ``max_outcomes``, or an estimate after some hundred exceeds it; the program is not deterministic given
            its samples: a second run of the first or the last outcome differs, or a number was drawn from a global
            generator of torch, NumPy or Python (which other threads must not use meanwhile); the probabilities do not
            sum to 1; a name in ``quadrature`` is not that of a sample; a breakpoint lies outside the support; or as
            ``trace``.

    Example:
        >>> import torch
        >>> def program(graph, theta):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     graph.cost("f", (x - 0.45) ** 2)
        >>> expected_cost(program, torch.tensor(0.0))
        tensor(0.2525)
    """
    return expectation(_outcomes(program, args, batch_dims, Quadrature(quadrature, breakpoints), max_outcomes))


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
    integrated sample are the nodes of its rule; its log-probability has the value of the node's log-weight and the
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
    yield from _outcomes(program, args, batch_dims, Quadrature(quadrature, breakpoints), max_outcomes)


def _outcomes(
    program: Program, args: tuple[Any, ...], batch_dims: int, rules: Quadrature, max_outcomes: int
) -> Iterator[Outcome]:
    yield from enumerate_outcomes(rules, program, args, batch_dims, max_outcomes)
    rules.check_seen()
