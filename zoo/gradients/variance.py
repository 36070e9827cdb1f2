from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.gradients._steps import preserve_buffers


class RunningMoments:
    """Weighted mean of vectors with the sums of squared (``m2``) and cubed (``m3``) deviations, updated in groups.

    Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.

    Example:
        >>> moments = RunningMoments()
        >>> moments.update(torch.tensor([[1.0], [3.0]]), torch.ones(2))
        >>> moments.mean, moments.m2
        (tensor([2.]), tensor([2.]))
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.mean = self.m2 = self.m3 = torch.zeros((), device="cpu")  # a CPU scalar works with any device

    @property
    def skewness_of_mean(self) -> Tensor:
        """Skewness of the mean of ``weight`` samples, ``Σ d³ / (Σ d²)^(3/2)``; 0 if nothing varies."""
        return torch.where(self.m2 == 0, 0, self.m3 / self.m2**1.5)

    def update(self, vectors: Float[Tensor, "group size"], weights: Float[Tensor, " group"]) -> None:
        """Include a group of vectors."""
        weight = weights.sum().item()
        mean = weights @ vectors / weight
        deviation = vectors - mean
        m2, m3 = weights @ deviation**2, weights @ deviation**3
        step, share = mean - self.mean, weight / (self.weight + weight)
        between = self.weight * share * step  # contribution of the distance between the two means
        crossed = 3 * step * ((1 - share) * m2 - share * self.m2)
        self.m3 = self.m3 + m3 + crossed + between * step**2 * (1 - 2 * share)
        self.m2 = self.m2 + m2 + between * step
        self.mean = self.mean + share * step
        self.weight += weight


class Moments(NamedTuple):
    """Mean and variance of a random quantity, elementwise.

    Example:
        >>> Moments(torch.tensor(1.0), variance=torch.tensor(4.0), standard_error=torch.tensor(0.2)).signal_to_noise
        tensor(0.5000)
    """

    mean: Tensor
    variance: Tensor
    standard_error: Tensor
    """Standard error of the mean; 0 if it is exact."""

    @property
    def signal_to_noise(self) -> Tensor:
        """``|mean| / sqrt(variance)``. Estimated from ``n`` samples of pure noise it is about ``1 / sqrt(n)``."""
        return torch.where(self.mean == 0, 0.0, self.mean.abs() / self.variance.sqrt())


class GradientMoments(NamedTuple):
    """Mean and variance of a gradient.

    Example:
        >>> one = Moments(torch.tensor(1.0), torch.tensor(4.0), torch.tensor(0.2))
        >>> GradientMoments(parameters=(one,), total=one).total.variance
        tensor(4.)
    """

    parameters: tuple[Moments, ...]
    """Moments of each parameter's gradient, in its shape and in the order of the parameters."""
    total: Moments
    """Norm of the mean and sum of the variances of the whole gradient; scalars."""
    skewness_of_mean: Tensor | None = None
    """Skewness of the mean over the samples, one number per element of the gradient; None if the moments are exact."""

    @classmethod
    def from_samples(cls, moments: RunningMoments, parameters: Sequence[Tensor]) -> "GradientMoments":
        """Return the estimates from the moments of sampled gradients, all of weight 1."""
        variance = moments.m2 / (moments.weight - 1)
        estimates = _by_parameter(moments.mean, variance, (variance / moments.weight).sqrt(), parameters)
        return estimates._replace(skewness_of_mean=moments.skewness_of_mean)


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
        loss: samples anew at each call and returns a scalar; with ``chunk_size > 1``, ``(chunk_size,)`` losses of
            independent samples, whose gradients are computed in one vectorized pass.
        parameters: tensors to differentiate with respect to.
        num_samples: number of gradients, ``n``.
        chunk_size: number of gradients per call.
        modules: modules whose buffers are restored after each call, such as baselines that learn.

    Raises:
        ValueError: ``num_samples`` is below 2 or not a multiple of ``chunk_size``, a loss has another shape or no
            gradient, or a parameter is not a tensor that requires one.

    Example:
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> moments = gradient_moments(lambda: theta * torch.randn(100), [theta], num_samples=10_000, chunk_size=100)
        >>> 0.8 < moments.total.variance.item() < 1.2
        True
    """
    parameters = _check_parameters(parameters)
    if chunk_size < 1 or num_samples < 2 or num_samples % chunk_size:
        raise ValueError(
            f"num_samples must be at least 2, and a multiple of chunk_size={chunk_size}, got {num_samples}"
        )
    modules, expected = list(modules), () if chunk_size == 1 else (chunk_size,)

    def weighted_losses() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(num_samples // chunk_size):
            with preserve_buffers(modules):
                losses = loss()
            _check_tensor("the loss", losses)
            if losses.shape != expected:
                raise ValueError(
                    f"with chunk_size={chunk_size} the loss must have shape {expected}, got {tuple(losses.shape)}"
                )
            yield torch.ones_like(losses), losses

    return GradientMoments.from_samples(_running_moments(weighted_losses(), parameters), parameters)


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
    parameters = _check_parameters(parameters)
    moments = _running_moments(outcomes, parameters)
    if not abs(moments.weight - 1) < 1e-4:
        raise ValueError(
            f"the probabilities sum to {moments.weight:.6g}, not to 1: an outcome is missing or was counted twice"
        )
    return _by_parameter(moments.mean, moments.m2 / moments.weight, torch.zeros_like(moments.mean), parameters)


def _running_moments(weighted: Iterable[tuple[Tensor, Tensor]], parameters: Sequence[Tensor]) -> RunningMoments:
    """Return the moments of the gradients of losses, given as pairs of weights and losses."""
    moments, has_gradient = RunningMoments(), False
    for weights, losses in weighted:
        _check_tensor("the loss", losses)
        if losses.shape != weights.shape or losses.ndim > 1:
            raise ValueError(
                f"losses of shape {tuple(losses.shape)} do not fit weights of shape {tuple(weights.shape)}"
            )
        has_gradient = has_gradient or losses.requires_grad
        possible = weights.detach() > 0  # the gradient of an impossible outcome may be NaN
        if possible.any():
            gradients = per_sample_gradients(losses[possible].flatten(), parameters)
            moments.update(gradients, weights.detach()[possible].flatten().to(gradients))
    if not has_gradient:
        raise ValueError("no loss has a gradient: it was detached, or computed without the parameters")
    return moments


def _by_parameter(mean: Tensor, variance: Tensor, error: Tensor, parameters: Sequence[Tensor]) -> GradientMoments:
    """Split vectors over all parameters into the shapes of the parameters."""
    sizes = [parameter.numel() for parameter in parameters]
    cuts = zip(*(vector.split(sizes) for vector in (mean, variance, error)), parameters, strict=True)
    each = tuple(Moments(*(part.reshape(parameter.shape) for part in parts)) for *parts, parameter in cuts)
    return GradientMoments(each, Moments(mean.norm(), variance.sum(), error.norm()))


def per_sample_gradients(losses: Float[Tensor, " samples"], parameters: Sequence[Tensor]) -> Float[Tensor, "samples n"]:
    """Return the gradient of each loss with respect to all ``n`` numbers in the parameters, in one backward pass.

    At least in float32, as half precision cannot hold the squares of gradients.

    Example:
        >>> theta = torch.tensor(2.0, requires_grad=True)
        >>> per_sample_gradients(torch.stack([theta**2, 3 * theta]), [theta])
        tensor([[4.],
                [3.]])
    """
    found: Sequence[Tensor | None] = [None] * len(parameters)
    if losses.requires_grad:
        each = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
        if len(losses) == 1:  # works for losses that vmap does not support
            found = torch.autograd.grad(losses, parameters, each[0], retain_graph=True, allow_unused=True)
        else:
            found = torch.autograd.grad(
                losses, parameters, each, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
    rows = [
        parameter.new_zeros(len(losses), parameter.numel()) if gradient is None else gradient.reshape(len(losses), -1)
        for gradient, parameter in zip(found, parameters, strict=True)
    ]
    gradients = torch.cat([row.to(rows[0].device) for row in rows], dim=1).detach()
    return gradients.to(torch.promote_types(gradients.dtype, torch.float32))


def _check_parameters(parameters: Iterable[Tensor]) -> list[Tensor]:
    # Iterating over a tensor yields new tensors, which are not in the graph of the loss.
    if isinstance(parameters, Tensor | nn.Module):
        raise ValueError(f"the parameters must be a list of tensors, got one {type(parameters).__name__}")
    parameters = list(parameters)
    for parameter in parameters:
        _check_tensor("a parameter", parameter)
    if not parameters or not all(parameter.requires_grad for parameter in parameters):
        raise ValueError("there must be parameters to differentiate with respect to, all with requires_grad=True")
    return parameters


def _check_tensor(what: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be a tensor, got {type(value).__name__}")


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
        weight: probability of each sample, if the samples are all possible outcomes; None for equal weights.

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
