from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.gradients._moments import (
    GradientMoments,
    Moments,
    by_parameter,
    check_parameters,
    gradient_moments_from_samples,
    sample_gradients,
    sampled_moments,
)

__all__ = ["GradientMoments", "Moments", "exact_moments", "gradient_moments", "optimal_baseline"]


def gradient_moments(
    loss: Callable[[], Tensor],
    parameters: Iterable[Tensor],
    num_samples: int,
    chunk_size: int = 1,
    modules: Iterable[nn.Module] = (),
) -> GradientMoments:
    """Return mean, variance and signal-to-noise ratio of a random loss's gradient, estimated from repeated calls.

    ``Var[g] ≈ Σ_i (g_i - ḡ)² / (n - 1)``, with standard error ``sqrt(Var[g] / n)`` of ``ḡ``. The signal-to-noise ratio
    is that of Rainforth, Kosiorek, Le, Maddison, Igl, Wood & Teh, "Tighter variational bounds are not necessarily
    better", 2018. ``.grad`` is not changed; torch's random generators advance.

    Args:
        loss: samples anew and returns a scalar at each call; with ``chunk_size > 1``, ``(chunk_size,)`` losses of
            independent samples, whose gradients are computed in one vectorized pass.
        parameters: tensors to differentiate with respect to.
        num_samples: number of gradients, ``n``.
        chunk_size: number of gradients per call.
        modules: modules whose buffers are preserved at each call, such as baselines that learn.

    Raises:
        ValueError: ``num_samples`` is below 2 or not a multiple of ``chunk_size``, a loss has another shape or no
            gradient, or a parameter is not a tensor that requires one.

    Example:
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> moments = gradient_moments(lambda: theta * torch.randn(100), [theta], num_samples=10_000, chunk_size=100)
        >>> 0.8 < moments.total.variance.item() < 1.2
        True
    """
    parameters = check_parameters(parameters)
    return sampled_moments(sample_gradients(loss, parameters, num_samples, chunk_size, modules), parameters)


def exact_moments(outcomes: Iterable[tuple[Tensor, Tensor]], parameters: Iterable[Tensor]) -> GradientMoments:
    """Return mean, variance and signal-to-noise ratio of a random loss's gradient, from all its outcomes.

    ``Var[g] = Σ_x p(x) (g(x) - E[g])²``.

    Args:
        outcomes: probability and loss of each outcome, two scalars, or two vectors for several outcomes. Probabilities
            are not differentiated, nor is a loss of probability 0.
        parameters: tensors to differentiate with respect to.

    Raises:
        ValueError: the probabilities do not sum to 1, losses and probabilities differ in shape, no loss has a gradient,
            or a parameter requires none.

    Example:
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> policy = torch.distributions.Bernoulli(logits=theta)
        >>> x = policy.enumerate_support()
        >>> log_prob = policy.log_prob(x)
        >>> exact_moments([(log_prob.exp(), log_prob * 4 * x)], [theta]).total
        Moments(mean=tensor(1.), variance=tensor(1.), standard_error=tensor(0.))
    """
    parameters = check_parameters(parameters)
    moments = gradient_moments_from_samples(outcomes, parameters)
    if not abs(moments.weight - 1) < 1e-4:
        raise ValueError(
            f"the probabilities sum to {moments.weight:.6g}, not to 1: an outcome is missing or was counted twice"
        )
    return by_parameter(moments.mean, moments.m2 / moments.weight, torch.zeros_like(moments.mean), parameters)


def optimal_baseline(
    score: Float[Tensor, " samples *parameters"],
    signal: Shaped[Tensor, " samples"],
    weight: Float[Tensor, " samples"] | None = None,
) -> Float[Tensor, "*parameters"]:
    """Return the constant baseline that minimizes the variance of the score-function gradient.

    ``b* = E[f s²] / E[s²]``, the minimum of ``Var[(f - b) s]``. Weaver & Tao, "The optimal reward baseline for
    gradient-based reinforcement learning", 2001; Greensmith, Bartlett & Baxter, "Variance reduction techniques for
    gradient estimates in reinforcement learning", 2004. Applied to the samples it is estimated from, it is biased.

    Args:
        score: ``s = ∇ log p(x)`` of each sample, for one baseline per parameter; or its norm, ``(samples,)``, for the
            baseline that minimizes the sum of the variances.
        signal: ``f(x)`` of each sample.
        weight: probability of each sample if they are all outcomes; None for equal weights.

    Returns:
        The baseline in the units of the signal; 0 where all scores are 0.

    Raises:
        ValueError: ``signal`` or ``weight`` is not one number per sample.

    Example:
        >>> optimal_baseline(score=torch.tensor([-0.5, 0.5]), signal=torch.tensor([1.0, 3.0]))
        tensor(2.)
    """
    weight = score.new_ones(len(score)) if weight is None else weight
    for name, x in (("signal", signal), ("weight", weight)):
        if x.shape != score.shape[:1]:
            raise ValueError(
                f"{name} must have shape {tuple(score.shape[:1])}, one number per sample, got {tuple(x.shape)}"
            )
    possible = weight > 0  # the score of an impossible outcome may be NaN
    weight, square = weight[possible].to(score.dtype), score[possible] ** 2
    information = torch.tensordot(weight, square, 1)
    return torch.tensordot(weight * signal[possible], square, 1) / torch.where(information > 0, information, 1)
