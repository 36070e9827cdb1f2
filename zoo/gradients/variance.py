from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.gradients._per_sample import check_parameters, check_tensor, gradient_moments_from_samples
from zoo.gradients._steps import preserve_buffers
from zoo.gradients.running import RunningMoments


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
    num_samples: int,
    chunk_size: int = 1,
    modules: Iterable[nn.Module] = (),
) -> GradientMoments:
    """Mean, variance, standard error and signal-to-noise ratio of a random loss's gradient, from repeated calls.

    ``Var[g] ≈ Σ_i (g_i - ḡ)² / (n - 1)``, and ``sqrt(Var[g] / n)`` for the error of ``ḡ``. The signal-to-noise ratio is
    that of Rainforth, Kosiorek, Le, Maddison, Igl, Wood & Teh, "Tighter variational bounds are not necessarily better",
    2018. No ``.grad`` is touched; torch's random generators move on.

    Args:
        loss: makes new draws each time it is called, and gives a scalar.
        parameters: what to differentiate with respect to.
        num_samples: number of gradients, ``n``.
        chunk_size: how many independent draws a call makes. If there are several it gives their losses,
            ``(chunk_size,)``, and their gradients are taken in one vectorised pass.
        modules: whose buffers are the same at each call and afterwards: of baselines that learn while they are used.

    Raises:
        ValueError: there are fewer than 2 draws, or they are no multiple of ``chunk_size``; the loss is no tensor, or
            has another shape, or no gradient; there are no parameters, or one that needs no gradient or is no tensor.

    Example:
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> moments = gradient_moments(lambda: theta * torch.randn(100), [theta], num_samples=10_000, chunk_size=100)
        >>> 0.8 < moments.total.variance.item() < 1.2
        True
    """
    parameters = check_parameters(parameters)
    return sampled_moments(sample_gradients(loss, parameters, num_samples, chunk_size, modules), parameters)


def sample_gradients(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    num_samples: int,
    chunk_size: int = 1,
    modules: Iterable[nn.Module] = (),
) -> RunningMoments:
    """RunningMoments of a random loss's gradient over so many draws. See ``gradient_moments``."""
    if chunk_size < 1 or num_samples < 2 or num_samples % chunk_size:
        raise ValueError(
            f"num_samples must be at least 2, and a multiple of chunk_size={chunk_size}, got {num_samples}"
        )
    modules, expected = list(modules), () if chunk_size == 1 else (chunk_size,)

    def weighed() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(num_samples // chunk_size):
            with preserve_buffers(modules):
                losses = loss()
            check_tensor("the loss", losses)
            if losses.shape != expected:
                raise ValueError(
                    f"with chunk_size={chunk_size} the loss must have shape {expected}, got {tuple(losses.shape)}"
                )
            yield torch.ones_like(losses), losses

    return gradient_moments_from_samples(weighed(), parameters)


def sampled_moments(spread: RunningMoments, parameters: Sequence[Tensor]) -> GradientMoments:
    """Moments of what was drawn, with as many draws as there is weight."""
    variance = spread.m2 / (spread.weight - 1)
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
    parameters = check_parameters(parameters)
    spread = gradient_moments_from_samples(outcomes, parameters)
    if not abs(spread.weight - 1) < 1e-4:
        raise ValueError(
            f"the probabilities sum to {spread.weight:.6g}, not to 1: an outcome is missing or was counted twice"
        )
    return by_parameter(spread.mean, spread.m2 / spread.weight, torch.zeros_like(spread.mean), parameters)


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
