from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._per_sample import per_sample_gradients
from zoo.gradients.graphs._distributions import base_distribution
from zoo.gradients.graphs._paths import Path, enumerate_paths
from zoo.gradients.graphs._quadrature import Quadrature
from zoo.gradients.graphs._replay import enumerate_values
from zoo.gradients.variance import GradientMoments, exact_moments

Draw = Callable[[str, Distribution], Tensor]

SAMPLE = "test the estimator by sampling: num_samples=10_000"
NOT_REPEATABLE = (
    "the estimator is not deterministic given the values that it draws: it keeps a state (name its modules: "
    f"modules=[...]), or its random numbers do not come from draw ({SAMPLE})"
)


def moments_by_enumeration(
    estimate: Callable[[Draw], Tensor], rules: Quadrature, parameters: Sequence[Tensor], max_outcomes: int
) -> GradientMoments:
    """Exact moments of an estimated gradient: of all that an estimator may draw.

    Args:
        estimate: gives a scalar whose gradient is the estimate, with all that is random in it from a ``draw``.
        rules: of the continuous variables that it draws.
        parameters: what to differentiate with respect to.
        max_outcomes: maximum number of outcomes.

    Raises:
        ValueError: the estimator draws, or learns, besides; it draws what can neither be enumerated nor integrated; or
            there are more outcomes than ``max_outcomes``.

    Example:
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> def estimate(draw):
        ...     policy = torch.distributions.Bernoulli(logits=theta)
        ...     x = draw("x", policy)
        ...     return policy.log_prob(x) * 4 * x
        >>> moments_by_enumeration(estimate, Quadrature(), [theta], max_outcomes=10).total
        Moments(mean=tensor(1.), variance=tensor(1.), standard_error=tensor(0.))
    """

    def outcomes() -> Iterator[tuple[Tensor, Tensor]]:
        def outcome(path: Path) -> tuple[Tensor, Tensor]:
            replay = Replay(path, rules)
            surrogate = estimate(replay)
            return replay.probability, surrogate

        return enumerate_paths(outcome, max_outcomes, NOT_REPEATABLE, f"increase max_outcomes, or {SAMPLE}")

    def first() -> Tensor:
        _, surrogate = next(outcomes())
        return per_sample_gradients(surrogate[None], parameters)

    gradient = first()
    moments = exact_moments(outcomes(), parameters)
    if not torch.allclose(gradient, first(), rtol=0, atol=0, equal_nan=True):
        raise ValueError(NOT_REPEATABLE)
    return moments


class Replay:
    """Draws along a path of outcomes.

    Args:
        path: tells which outcome each draw takes.
        rules: of the variables that are integrated.
    """

    def __init__(self, path: Path, rules: Quadrature):
        self.path = path
        self.rules = rules
        self.probability = torch.ones((), dtype=torch.float64, device="cpu")
        """Of all draws together."""

    def __call__(self, name: str, distribution: Distribution) -> Tensor:
        """Draw."""
        base = base_distribution(distribution)
        values, weights = self.values_and_weights(name, base)
        self.path.check_size(name, len(values) ** base.batch_shape.numel())  # before all are written down
        values, weights = jointly(values, weights)
        taken = self.path.choose(name, len(values))
        self.probability = self.probability * weights[taken].to(self.probability)
        return values[taken]

    def values_and_weights(self, name: str, base: Distribution) -> tuple[Tensor, Tensor]:
        """All values of each element, ``(values, *batch, *event)``, and their weights, ``(values, *batch)``."""
        if (rule := self.rules.rule(name, base)) is not None:
            return rule.values, rule.log_weights.exp()
        try:
            values = enumerate_values(name, base)
        except ValueError as error:
            raise ValueError(f"of what the estimator draws, {error}; or {SAMPLE}") from None
        return values, base.log_prob(values).exp().detach()


def jointly(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """All possible values of all elements together, ``(joint, *batch, *event)``, and their weights, ``(joint,)``."""
    batch, event = weights.shape[1:], values.shape[weights.ndim :]
    each, elements = len(values), batch.numel()
    element = torch.arange(elements, device=values.device)
    choice = torch.arange(each**elements, device=values.device)[:, None] // each**element % each
    joint = weights.reshape(each, elements)[choice, element].prod(1)
    values = values.reshape(each, elements, *event)[choice, element]
    return values.reshape(len(choice), *batch, *event)[joint > 0], joint[joint > 0]
