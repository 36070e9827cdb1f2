import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Uniform

from zoo.gradients.graphs import expected_cost
from zoo.gradients.graphs.enumeration import LIMIT, over, quadrature_rule
from zoo.gradients.graphs.program import Program, supported
from zoo.gradients.graphs.provenance import tensors_in
from zoo.gradients.moments import GradientMoments, exact_moments, gradient_moments, gradients_of, keep_buffers

Draw = Callable[[str, Distribution], Tensor]
Estimator = Callable[..., Tensor]
"""``estimator(program, *args, draw=draw)`` gives a scalar whose gradient is the estimate. All that is random it asks
from ``draw(name, distribution)``."""
Choices = Callable[[str, Distribution], tuple[Tensor, Tensor]]

POWER = 0.95
FEWEST_DRAWS = 1000
SAMPLE = "test the estimator by sampling: draws=10_000"
UNREPEATABLE = (
    "the estimator does not repeat itself when it is given the same values: it keeps a state (name its modules: "
    f"modules=[...]), or its random numbers do not come from draw ({SAMPLE})"
)


class BiasCheck(NamedTuple):
    """What was found out about an estimator's bias. True where no bias was found.

    The vectors have an element for each number in the parameters, in their order.
    """

    bias: Float[Tensor, " parameters"]
    """Mean of the estimated gradient, minus the exact gradient."""
    threshold: Float[Tensor, " parameters"]
    """Largest deviation that is not called a bias."""
    detectable_bias: Float[Tensor, " parameters"]
    """Smallest bias that is found: always, if the check is exact; else with 95 % probability."""
    p_value: float
    """How probable so large a deviation is without a bias, over all parameters; 0 or 1 if the check is exact."""
    exact: bool
    """All that is random was gone through, not drawn."""
    moments: GradientMoments
    """Of the estimated gradient."""

    @property
    def unbiased(self) -> bool:
        """Tell whether no bias was found."""
        return bool((self.bias.abs() <= self.threshold).all())

    def __bool__(self) -> bool:
        return self.unbiased

    def __str__(self) -> str:
        finding = "no bias was found" if self.unbiased else "the estimator is biased"
        worst = int((self.bias.abs() / self.threshold.clamp(min=torch.finfo(self.bias.dtype).tiny)).argmax())
        size = f"the expected gradient is off by {self.bias[worst]:.3g} in element {worst}"
        if self.exact:
            return f"{finding}: {size}; {self.threshold[worst]:.3g} is tolerated"
        found = f"a bias of {self.detectable_bias[worst]:.3g} there is found with {POWER:.0%} probability"
        return f"{finding}: {size}, p = {self.p_value:.3g}; {found}"

    def raise_if_biased(self) -> None:
        """Raise an ``AssertionError`` with a sentence, if a bias was found."""
        if not self.unbiased:
            raise AssertionError(str(self))


def check_unbiased(
    estimator: Estimator,
    program: Program,
    *args: Any,
    batch_dims: int = 0,
    quadrature: Mapping[str, int] | None = None,
    kinks: Mapping[str, Sequence[float]] | None = None,
    draws: int | None = None,
    false_alarm: float = 1e-6,
    tolerance: float | None = None,
    modules: Iterable[nn.Module] = (),
) -> BiasCheck:
    """Tell whether an estimator's expected gradient is the exact gradient of a program's expected cost.

    Exact, ``|Σ_u p(u) g(u) - ∇ E[f]| ≤ tolerance``, by running the estimator on every outcome ``u`` of all that it
    draws. Or, with ``draws``, a z-test, ``|ḡ - ∇ E[f]| ≤ z · sqrt(Var[g] / n)``, with Bonferroni's ``z`` for the number
    of parameters. It takes the mean for normal; gradients that are seldom not 0 need many draws.

    Args:
        estimator: called as ``estimator(program, *args, draw=draw)``. It gives a scalar whose gradient is the estimate,
            and calls ``draw(name, distribution)`` for all that is random in it: values without a gradient, as of
            ``distribution.sample()``; a pathwise estimator draws its noise.
        program: see ``trace``.
        args: of the program. Those that need a gradient, and the parameters of those that are modules, are what is
            differentiated with respect to. Double precision is best.
        batch_dims: as in ``expected_cost``.
        quadrature: number of nodes for each continuous variable, of the program or of the estimator's own noise. See
            ``expected_cost``.
        kinks: values at which the estimator is not smooth, for continuous variables; the quadrature, Gauss–Legendre
            over the quantiles, is split there.
        draws: number of gradients to draw for a z-test; None for the exact check.
        false_alarm: how often the z-test may call an unbiased estimator biased.
        tolerance: for rounding, a fraction of 1 + the gradients' root mean square; None for 1e-9 in double precision,
            1e-5 in single.
        modules: whose buffers are to be the same at each run, and afterwards: of baselines that learn while they
            are used.

    Raises:
        ValueError: nothing can be differentiated, the estimator does not repeat itself when given the same values, the
            options make no sense; or as ``expected_cost``, of the program and of what the estimator draws.

    Example:
        >>> from zoo.gradients.graphs import trace
        >>> def program(graph, theta):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     graph.cost("f", (x - 0.45) ** 2)
        >>> def estimator(program, theta, *, draw):
        ...     return trace(program, theta, draw=draw).surrogate()
        >>> theta = torch.zeros((), dtype=torch.double, requires_grad=True)
        >>> check_unbiased(estimator, program, theta).unbiased
        True
        >>> halved = check_unbiased(lambda *args, draw: estimator(*args, draw=draw) / 2, program, theta)
        >>> print(halved)
        the estimator is biased: the expected gradient is off by -0.0125 in element 0; 1.06e-09 is tolerated
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm must lie between 0 and 1, got {false_alarm}")
    if draws is not None and draws < FEWEST_DRAWS:
        raise ValueError(f"a z-test needs at least {FEWEST_DRAWS} draws for their mean to be normal, got {draws}")
    quadrature, kinks = quadrature or {}, kinks or {}
    if unruled := sorted(kinks.keys() - quadrature.keys()):
        raise ValueError(f"kinks of {unruled[0]!r} need a number of nodes too: quadrature={{{unruled[0]!r}: 16}}")
    parameters = parameters_in(args)
    expected = expected_cost(program, *args, batch_dims=batch_dims, quadrature=quadrature)
    (truth,) = gradients_of(expected[None], parameters)
    stateful = [*modules, *(x for x in (estimator, *args) if isinstance(x, nn.Module))]

    def estimate(draw: Draw) -> Tensor:
        with keep_buffers(stateful):
            surrogate = estimator(program, *args, draw=draw)
        if surrogate.ndim:
            raise ValueError(f"the estimator must give a scalar, got shape {tuple(surrogate.shape)}")
        return surrogate

    if draws is None:
        choices = functools.partial(possible_values, quadrature=quadrature, kinks=kinks)
        moments = moments_of_replays(estimate, choices, parameters)
    else:
        moments = gradient_moments(lambda: estimate(lambda _, law: law.sample()), parameters, draws)
    return judge(moments, truth, draws is None, false_alarm, tolerance)


def judge(
    moments: GradientMoments, truth: Tensor, exact: bool, false_alarm: float, tolerance: float | None
) -> BiasCheck:
    """Compare an estimated gradient's moments with the exact gradient."""
    columns = zip(*((m.mean, m.variance, m.standard_error) for m in moments.parameters), strict=True)
    mean, variance, error = (torch.cat([part.flatten() for part in column]).double() for column in columns)
    if tolerance is None:
        tolerance = 1e-9 if truth.dtype == torch.float64 else 1e-5
    slack = tolerance * (1 + (mean**2 + variance).sqrt())
    bias = mean - truth.double()
    z, found = (-torch.special.ndtri(torch.tensor(p).double()) for p in (false_alarm / 2 / len(bias), 1 - POWER))
    threshold = slack + z * error
    excess = (bias.abs() - slack).clamp(min=0)
    deviation = torch.where(excess == 0, 0, excess / error)
    p_value = torch.special.erfc(deviation / math.sqrt(2)).min() * len(bias)
    return BiasCheck(bias, threshold, threshold + found * error, min(p_value.item(), 1.0), exact, moments)


def moments_of_replays(
    estimate: Callable[[Draw], Tensor], choices: Choices, parameters: Sequence[Tensor]
) -> GradientMoments:
    """Go through all that an estimator may draw, and see that it does not draw, or learn, besides."""

    def first() -> tuple[Tensor, Tensor]:
        _, surrogate = next(replays(estimate, choices))
        return gradients_of(surrogate[None], parameters), torch.get_rng_state()

    gradient, state = first()
    moments = exact_moments(replays(estimate, choices), parameters)
    gradient_again, state_again = first()
    repeated = torch.allclose(gradient, gradient_again, rtol=0, atol=0, equal_nan=True)
    if not (repeated and torch.equal(state, state_again)):
        raise ValueError(UNREPEATABLE)
    return moments


def replays(estimate: Callable[[Draw], Tensor], choices: Choices) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through all that an estimator may draw: its probability, and what the estimator makes of it.

    Raises:
        ValueError: there is too much; or the estimator does not always draw and answer alike.
    """
    path: list[tuple[int, int]] = []
    for count in itertools.count(1):
        replay = Replay(path, choices)
        surrogate = estimate(replay)
        if replay.depth != len(path):
            raise ValueError(UNREPEATABLE)
        if (at_least := max(count, math.prod(size for _, size in path))) > LIMIT:
            raise ValueError(f"there are {at_least} outcomes or more, and the limit is {LIMIT}; {SAMPLE}")
        yield replay.probability, surrogate
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1] = (path[-1][0] + 1, path[-1][1])


class Replay:
    """Draws along a path of outcomes, and takes the first outcome of whatever comes after it.

    Args:
        path: of each draw in turn, which of how many outcomes; continued in place.
        choices: see ``possible_values``.
    """

    def __init__(self, path: list[tuple[int, int]], choices: Choices):
        self.path = path
        self.choices = choices
        self.depth = 0
        self.probability = torch.ones((), dtype=torch.float64)

    def __call__(self, name: str, distribution: Distribution) -> Tensor:
        """Draw."""
        values, probabilities = self.choices(name, distribution)
        if self.depth == len(self.path):
            self.path.append((0, len(values)))
        taken, size = self.path[self.depth]
        if size != len(values):
            raise ValueError(UNREPEATABLE)
        self.depth += 1
        self.probability = self.probability * probabilities[taken]
        return values[taken]


@torch.no_grad()
def possible_values(
    name: str, distribution: Distribution, quadrature: Mapping[str, int], kinks: Mapping[str, Sequence[float]]
) -> tuple[Tensor, Tensor]:
    """All values of a variable, ``(values, *batch, *event)``, and their probabilities or weights, ``(values,)``."""
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    base = base.expand(base.batch_shape)  # anew, as distributions keep what they are asked to compute
    if name in quadrature:
        values, weights = integration_rule(name, base, quadrature[name], kinks.get(name, ()))
    else:
        try:
            values = base.enumerate_support()
        except NotImplementedError:
            raise ValueError(
                f"the values of {name!r} ({type(base).__name__}), drawn by the estimator, cannot be enumerated; if it "
                f"is continuous, integrate it numerically: quadrature={{{name!r}: 32}}; else {SAMPLE}"
            ) from None
        weights = base.log_prob(values).exp()
    each, elements = len(values), base.batch_shape.numel()
    if (count := each**elements) > LIMIT:
        raise ValueError(f"{name!r} has {count} values, and the limit is {LIMIT} outcomes; {SAMPLE}")
    element = torch.arange(elements, device=values.device)
    choice = torch.arange(count, device=values.device)[:, None] // each**element % each
    joint = weights.reshape(each, elements)[choice, element].prod(1)
    values = values.reshape(each, elements, *base.event_shape)[choice, element]
    return values.reshape(count, *base.batch_shape, *base.event_shape)[joint > 0], joint[joint > 0]


def integration_rule(name: str, base: Distribution, nodes: int, kinks: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Nodes for each element of a continuous variable, and their weights, ``(nodes, *batch)``."""
    if not kinks:
        values, log_weights = quadrature_rule(name, base, nodes)
        return values, over(log_weights.exp(), base.mean).expand_as(values)
    inner = over(torch.tensor(sorted(set(kinks)), dtype=torch.float64), base.mean).expand(-1, *base.batch_shape)
    inner = base.cdf(inner) if supported(base, inner) else torch.zeros_like(inner)
    if not bool(((inner > 0) & (inner < 1)).all()):
        raise ValueError(f"the kinks of {name!r} must lie within its support, got {sorted(kinks)}")
    edges = torch.cat([torch.zeros_like(inner[:1]), inner, torch.ones_like(inner[:1])])
    uniform = Uniform(edges[:-1], edges[1:])  # the pieces, in quantiles
    quantiles, log_weights = quadrature_rule(name, uniform, nodes)
    weights = over(log_weights.exp(), edges) * edges.diff(dim=0)
    return base.icdf(quantiles.flatten(0, 1)), weights.flatten(0, 1)


def parameters_in(args: Sequence[Any]) -> list[Tensor]:
    """Tensors to differentiate with respect to, each once."""
    modules = [parameter for x in args if isinstance(x, nn.Module) for parameter in x.parameters()]
    found = {id(x): x for x in [*tensors_in(args), *modules] if x.requires_grad}
    if not found:
        raise ValueError("none of the program's arguments needs a gradient; set requires_grad=True")
    return list(found.values())
