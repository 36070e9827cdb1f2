"""Conversion, broadcasting and masking of the arguments of estimators."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class SupportsArray(Protocol):
    """NumPy arrays and objects that convert to them."""

    def __array__(self) -> Any:
        """Return the NumPy array."""


ArrayLike = float | int | Sequence[Any] | SupportsArray


def at_least_float32(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the data type in which numbers of a type are added and subtracted.

    Half precision cannot represent the sum or the count of a large batch, nor the difference of large signals; float32
    cannot represent integers of 32 bits or more. Apple's GPUs have no float64.
    """
    if dtype == torch.float32 or device.type == "mps":
        return torch.float32
    if dtype in (torch.int32, torch.int64, torch.uint32, torch.uint64):
        return torch.float64
    return torch.promote_types(dtype, torch.float32)


def masked_mean(x: Float[Tensor, "*dims"], mask: Bool[Tensor, "*dims"] | None) -> Float[Tensor, ""]:
    """Return the mean of the valid elements; 0 if there are none. Masked elements may be NaN."""
    if mask is None:
        return x.sum() / max(x.numel(), 1)
    return torch.where(mask, x, 0).sum() / mask.sum().clamp(min=1)


def zero_masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Replace by 0 where the mask is false; a tensor without the leading dimensions of the mask is not changed."""
    if mask is None or x.shape[: mask.ndim] != mask.shape:
        return x
    return torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, 0)


def surrogate_loss(log_prob: Tensor, advantage: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``log_prob * advantage``; gradients of masked elements are exactly 0."""
    return zero_masked(log_prob, mask) * advantage.to(log_prob.dtype)


def as_tensor(log_prob: Tensor, name: str, x: Tensor | ArrayLike, dtype: torch.dtype | None = None) -> Tensor:
    """Convert an argument to a tensor on the device of ``log_prob``.

    With a ``dtype``, numbers and lists of them are converted to it, arrays are at least float32.
    """
    if not isinstance(x, Tensor):
        try:
            made = torch.tensor(x, dtype=None if isinstance(x, SupportsArray) else dtype)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(
                f"{name} must be a tensor, an array, a number or a list of numbers, got {type(x).__name__}; tensors in "
                "a list are joined by torch.stack, and numbers must fit into double precision"
            ) from None
        x = made.to(log_prob.device, made.dtype if dtype is None else at_least_float32(made.dtype, log_prob.device))
    if x.is_complex() or (x.is_floating_point() and x.dtype.itemsize < 2):
        raise ValueError(f"{name} must be of real numbers of 16 bits or more, got {x.dtype}; convert it by .float()")
    return x


def broadcast_to_log_prob(log_prob: Tensor, name: str, x: Tensor) -> Tensor:
    """Broadcast an argument to the shape of ``log_prob``."""
    try:
        return x.expand(log_prob.shape)
    except RuntimeError:
        raise ValueError(
            f"{name} of shape {tuple(x.shape)} does not broadcast to log_prob of shape {tuple(log_prob.shape)}"
        ) from None


def broadcast_mask(log_prob: Tensor, mask: Tensor | ArrayLike) -> Tensor:
    """Convert a mask to a boolean tensor of the shape of ``log_prob``."""
    mask = as_tensor(log_prob, "mask", mask)
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, true where an element counts, got {mask.dtype}")
    return broadcast_to_log_prob(log_prob, "mask", mask)
