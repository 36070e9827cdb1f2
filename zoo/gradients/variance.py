import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.gradients._steps import Learner
from zoo.gradients.spread import Spread, check_tensor, differentiable, spread_of_gradients


class Moments(NamedTuple):
    """Mean and spread of something random; element by element, if it has several."""

    mean: Tensor
    variance: Tensor
    standard_error: Tensor
    """Of the mean; 0 where every outcome was counted."""

    @property
    def signal_to_noise(self) -> Tensor:
        """``|mean| / sqrt(variance)``; infinite without noise, 0 without a signal.

        Measured over ``n`` draws it is about ``1 / sqrt(n)`` where there is nothing but noise.
        """
        return torch.where(self.mean == 0, 0.0, self.mean.abs() / self.variance.sqrt())


class GradientMoments(NamedTuple):
    """Mean and spread of a gradient."""

    parameters: tuple[Moments, ...]
    """Of each parameter, in its shape, in the order in which they were given."""
    total: Moments
    """Of the whole gradient as one vector: the norm of its mean, and the sum of the variances. Scalars."""


def gradient_moments(
    loss: Callable[[], Tensor],
    parameters: Iterable[Tensor],
    draws: int,
    at_once: int = 1,
    modules: Iterable[nn.Module] = (),
) -> GradientMoments:
    """Mean, variance, standard error and signal-to-noise ratio of a random loss's gradient, from repeated calls.

    ``Var[g] ≈ Σ_i (g_i - ḡ)² / (n - 1)``, and ``sqrt(Var[g] / n)`` for the error of ``ḡ``. The signal-to-noise ratio is
    that of Rainforth, Kosiorek, Le, Maddison, Igl, Wood & Teh, "Tighter variational bounds are not necessarily better",
    2018. No ``.grad`` is touched; torch's random generators move on.

    Args:
        loss: makes new draws each time it is called, and gives a scalar.
        parameters: what to differentiate with respect to.
        draws: number of gradients, ``n``.
        at_once: how many independent draws a call makes. If there are several it gives their losses, ``(at_once,)``,
            and their gradients are taken in one vectorised pass.
        modules: whose buffers are the same at each call and afterwards: of baselines that learn while they are used.

    Raises:
        ValueError: there are fewer than 2 draws, or they are no multiple of ``at_once``; the loss is no tensor, or has
            another shape, or no gradient; there are no parameters, or one that needs no gradient or is no tensor.

    Example:
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> moments = gradient_moments(lambda: theta * torch.randn(100), [theta], draws=10_000, at_once=100)
        >>> 0.8 < moments.total.variance.item() < 1.2
        True
    """
    parameters = differentiable(parameters)
    return sampled_moments(spread_of_draws(loss, parameters, draws, at_once, modules), parameters)


def spread_of_draws(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    draws: int,
    at_once: int = 1,
    modules: Iterable[nn.Module] = (),
) -> Spread:
    """Spread of a random loss's gradient over so many draws. See ``gradient_moments``."""
    if at_once < 1 or draws < 2 or draws % at_once:
        raise ValueError(f"draws must be at least 2, and a multiple of at_once={at_once}, got {draws}")
    modules, expected = list(modules), () if at_once == 1 else (at_once,)

    def weighed() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(draws // at_once):
            with keep_buffers(modules):
                losses = loss()
            check_tensor("the loss", losses)
            if losses.shape != expected:
                raise ValueError(
                    f"with at_once={at_once} the loss must have shape {expected}, got {tuple(losses.shape)}"
                )
            yield torch.ones_like(losses), losses

    return spread_of_gradients(weighed(), parameters)


def sampled_moments(spread: Spread, parameters: Sequence[Tensor]) -> GradientMoments:
    """Moments of what was drawn, with as many draws as there is weight."""
    variance = spread.squares / (spread.weight - 1)
    return by_parameter(spread.mean, variance, (variance / spread.weight).sqrt(), parameters)


def exact_moments(outcomes: Iterable[tuple[Tensor, Tensor]], parameters: Iterable[Tensor]) -> GradientMoments:
    """Mean, variance and signal-to-noise ratio of a random loss's gradient, from all its outcomes.

    ``Var[g] = Σ_x p(x) (g(x) - E[g])²``.

    Args:
        outcomes: probability and loss of each outcome, two scalars; or those of several, two vectors. No gradient is
            taken of the probability, and none of the loss where that is 0.
        parameters: what to differentiate with respect to.

    Raises:
        ValueError: the probabilities do not sum to 1; the losses have another shape than they, or no gradient; there
            are no parameters, or one that needs no gradient.

    Example:
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> policy = torch.distributions.Bernoulli(logits=theta)
        >>> x = policy.enumerate_support()
        >>> log_prob = policy.log_prob(x)
        >>> exact_moments([(log_prob.exp(), log_prob * 4 * x)], [theta]).total
        Moments(mean=tensor(1.), variance=tensor(1.), standard_error=tensor(0.))
    """
    parameters = differentiable(parameters)
    spread = spread_of_gradients(outcomes, parameters)
    if not abs(spread.weight - 1) < 1e-4:
        raise ValueError(
            f"the probabilities sum to {spread.weight:.6g}, not to 1: an outcome is missing or was counted twice"
        )
    return by_parameter(spread.mean, spread.squares / spread.weight, torch.zeros_like(spread.mean), parameters)


def optimal_baseline(
    score: Float[Tensor, " draws *parameters"],
    signal: Shaped[Tensor, " draws"],
    weight: Float[Tensor, " draws"] | None = None,
) -> Float[Tensor, "*parameters"]:
    """Constant baseline with which the score-function gradient varies least.

    ``b* = E[f s²] / E[s²]``: the minimum of ``Var[(f - b) s]``, a parabola in ``b``. Weaver & Tao, "The optimal reward
    baseline for gradient-based reinforcement learning", 2001; Greensmith, Bartlett & Baxter, "Variance reduction
    techniques for gradient estimates in reinforcement learning", 2004.

    Estimated from draws it depends on them: used on the same draws, it would bias the gradient.

    Args:
        score: ``s = ∇ log p(x)`` of each draw, for one baseline a parameter; or its norm, ``(draws,)``, for the one
            baseline with which the variances' sum is least.
        signal: ``f(x)`` of each draw, in its own units.
        weight: of each draw: its probability, if the draws are all outcomes there are. None for equal weights.

    Returns:
        The baseline, in the signal's units; 0 where the score always is.

    Raises:
        ValueError: ``signal`` or ``weight`` is not one number for each draw.

    Example:
        >>> optimal_baseline(score=torch.tensor([-0.5, 0.5]), signal=torch.tensor([1.0, 3.0]))
        tensor(2.)
    """
    weight = score.new_ones(len(score)) if weight is None else weight
    for name, x in (("signal", signal), ("weight", weight)):
        if x.shape != score.shape[:1]:
            raise ValueError(
                f"{name} must have shape {tuple(score.shape[:1])}, one number a draw, got {tuple(x.shape)}"
            )
    possible = weight > 0  # the score of what is impossible need not be a number
    weight, square = weight[possible].to(score.dtype), score[possible] ** 2
    information = torch.tensordot(weight, square, 1)
    return torch.tensordot(weight * signal[possible], square, 1) / torch.where(information > 0, information, 1)


def by_parameter(mean: Tensor, variance: Tensor, error: Tensor, parameters: Sequence[Tensor]) -> GradientMoments:
    """Cut vectors over all parameters into the parameters' shapes."""
    sizes = [parameter.numel() for parameter in parameters]
    cuts = zip(*(vector.split(sizes) for vector in (mean, variance, error)), parameters, strict=True)
    each = tuple(Moments(*(part.reshape(parameter.shape) for part in parts)) for *parts, parameter in cuts)
    return GradientMoments(each, Moments(mean.norm(), variance.sum(), error.norm()))


@contextmanager
def keep_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules work on copies of their buffers, and give them their own back, untouched."""
    owners = [owner for module in modules for owner in module.modules()]
    steps = [(owner, owner._step, owner._parameter) for owner in owners if isinstance(owner, Learner)]
    own = [dict(owner._buffers) for owner in owners]
    for owner, copies in zip(owners, copy.deepcopy(own), strict=True):  # at once: what is shared stays shared
        owner._buffers.update(copies)
    try:
        yield
    finally:
        for owner, buffers in zip(owners, own, strict=True):
            owner._buffers.clear()
            owner._buffers.update(buffers)
        for learner, step, parameter in steps:
            learner._step, learner._parameter = step, parameter
