from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients._steps import preserve_buffers
from zoo.gradients.running import RunningMoments


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


def sample_gradients(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    num_samples: int,
    chunk_size: int = 1,
    modules: Iterable[nn.Module] = (),
) -> RunningMoments:
    """Return the running moments of a random loss's gradient; see ``gradient_moments``."""
    if chunk_size < 1 or num_samples < 2 or num_samples % chunk_size:
        raise ValueError(
            f"num_samples must be at least 2, and a multiple of chunk_size={chunk_size}, got {num_samples}"
        )
    modules, expected = list(modules), () if chunk_size == 1 else (chunk_size,)

    def weighted() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(num_samples // chunk_size):
            with preserve_buffers(modules):
                losses = loss()
            check_tensor("the loss", losses)
            if losses.shape != expected:
                raise ValueError(
                    f"with chunk_size={chunk_size} the loss must have shape {expected}, got {tuple(losses.shape)}"
                )
            yield torch.ones_like(losses), losses

    return gradient_moments_from_samples(weighted(), parameters)


def sampled_moments(moments: RunningMoments, parameters: Sequence[Tensor]) -> GradientMoments:
    """Return the moments of sampled gradients, each of weight 1."""
    variance = moments.m2 / (moments.weight - 1)
    return by_parameter(moments.mean, variance, (variance / moments.weight).sqrt(), parameters)


def by_parameter(mean: Tensor, variance: Tensor, error: Tensor, parameters: Sequence[Tensor]) -> GradientMoments:
    """Split vectors over all parameters into the shapes of the parameters."""
    sizes = [parameter.numel() for parameter in parameters]
    cuts = zip(*(vector.split(sizes) for vector in (mean, variance, error)), parameters, strict=True)
    each = tuple(Moments(*(part.reshape(parameter.shape) for part in parts)) for *parts, parameter in cuts)
    return GradientMoments(each, Moments(mean.norm(), variance.sum(), error.norm()))


def gradient_moments_from_samples(
    weighted: Iterable[tuple[Tensor, Tensor]], parameters: Sequence[Tensor]
) -> RunningMoments:
    """Return the running moments of the gradients of losses, given as pairs of weights and losses."""
    moments, has_gradient = RunningMoments(), False
    for weights, losses in weighted:
        check_tensor("the loss", losses)
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


def per_sample_gradients(losses: Float[Tensor, " group"], parameters: Sequence[Tensor]) -> Float[Tensor, "group size"]:
    """Return the gradient of each loss with respect to all parameters, in one vectorized backward pass."""
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
    return gradients.to(torch.promote_types(gradients.dtype, torch.float32))  # half precision cannot hold the squares


def check_parameters(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the parameters as a list of tensors that require gradients."""
    # Iterating over a tensor yields new tensors, which are not in the graph of the loss.
    if isinstance(parameters, Tensor | nn.Module):
        raise ValueError(f"the parameters must be a list of tensors, got one {type(parameters).__name__}")
    parameters = list(parameters)
    for parameter in parameters:
        check_tensor("a parameter", parameter)
    if not parameters or not all(parameter.requires_grad for parameter in parameters):
        raise ValueError("there must be parameters to differentiate with respect to, all with requires_grad=True")
    return parameters


def check_tensor(what: str, value: Any) -> None:
    """Raise an error if a value is not a tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be a tensor, got {type(value).__name__}")
