from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients.graphs._distributions import base_distribution
from zoo.gradients.graphs._enumeration import enumerate_values
from zoo.gradients.graphs._paths import Path, enumerate_paths
from zoo.gradients.graphs._quadrature import Quadrature
from zoo.gradients.variance import GradientMoments, exact_moments, per_sample_gradients

Draw = Callable[[str, Distribution], Tensor]

_SAMPLE = "test the estimator by sampling: num_samples=10_000"
_NOT_REPEATABLE = (
    "the estimator is not deterministic given the values that it draws: it keeps a state (name its modules: "
    f"modules=[...]), or its random numbers do not come from draw ({_SAMPLE})"
)


def moments_by_enumeration(
    estimate: Callable[[Draw], Tensor], rules: Quadrature, parameters: Sequence[Tensor], max_outcomes: int
) -> GradientMoments:
    """Return the exact moments of an estimated gradient, from all outcomes of what the estimator draws."""

    def outcomes() -> Iterator[tuple[Tensor, Tensor]]:
        def outcome(path: Path) -> tuple[Tensor, Tensor]:
            replay = _Replay(path, rules)
            surrogate = estimate(replay)
            return replay.probability, surrogate

        return enumerate_paths(outcome, max_outcomes, _NOT_REPEATABLE, f"increase max_outcomes, or {_SAMPLE}")

    def first_gradient() -> Tensor:
        _, surrogate = next(outcomes())
        return per_sample_gradients(surrogate[None], parameters)

    before = first_gradient()
    moments = exact_moments(outcomes(), parameters)
    if not torch.allclose(before, first_gradient(), rtol=0, atol=0, equal_nan=True):
        raise ValueError(_NOT_REPEATABLE)
    return moments


class _Replay:
    """A ``draw`` that returns the values along one path of outcomes."""

    def __init__(self, path: Path, rules: Quadrature):
        self.path = path
        self.rules = rules
        self.probability = torch.ones((), dtype=torch.float64, device="cpu")  # of all draws together

    def __call__(self, name: str, distribution: Distribution) -> Tensor:
        """Return the value that the path chooses."""
        base = base_distribution(distribution)
        values, weights = self._values_and_weights(name, base)
        self.path.check_size(name, len(values) ** base.batch_shape.numel())
        values, weights = joint_values(values, weights)
        chosen = self.path.choose(name, len(values))
        self.probability = self.probability * weights[chosen].to(self.probability)
        return values[chosen]

    def _values_and_weights(self, name: str, base: Distribution) -> tuple[Tensor, Tensor]:
        """Return the values of each element, ``(values, *batch, *event)``, and their weights, ``(values, *batch)``."""
        if (rule := self.rules.rule(name, base)) is not None:
            return rule.values, rule.log_weights.exp()
        try:
            values = enumerate_values(name, base)
        except ValueError as error:
            raise ValueError(f"of what the estimator draws, {error}; or {_SAMPLE}") from None
        return values, base.log_prob(values).exp().detach()


def joint_values(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the joint values of all elements, ``(joint, *batch, *event)``, and their weights, ``(joint,)``."""
    batch, event = weights.shape[1:], values.shape[weights.ndim :]
    each, elements = len(values), batch.numel()
    element = torch.arange(elements, device=values.device)
    choice = torch.arange(each**elements, device=values.device)[:, None] // each**element % each
    joint = weights.reshape(each, elements)[choice, element].prod(1)
    values = values.reshape(each, elements, *event)[choice, element]
    return values.reshape(len(choice), *batch, *event)[joint > 0], joint[joint > 0]
