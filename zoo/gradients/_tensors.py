"""Conversion, broadcasting and masking of what an estimator is called with."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class SupportsArray(Protocol):
    """NumPy arrays, and what can be made one."""

    def __array__(self) -> Any:
        """Return the NumPy array."""


ArrayLike = float | int | Sequence[Any] | SupportsArray


LONG = (torch.int32, torch.int64, torch.uint32, torch.uint64)
"""Integers that single precision cannot hold."""


def at_least_single(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Precision in which numbers of a type are added and subtracted: theirs, but float32 at least.

    Half precision cannot hold the sum or the count of a large batch, nor the difference of large signals. Apple's GPUs
    have no float64.

    Example:
        >>> at_least_single(torch.bfloat16, torch.device("cpu")), at_least_single(torch.int64, torch.device("cpu"))
        (torch.float32, torch.float64)
    """
    if dtype == torch.float32 or device.type == "mps":
        return torch.float32
    return torch.float64 if dtype in LONG else torch.promote_types(dtype, torch.float32)


def masked_mean(x: Float[Tensor, "*dims"], mask: Bool[Tensor, "*dims"] | None) -> Float[Tensor, ""]:
    """Mean of the valid elements of ``x``; 0 where there are none. What lies behind the mask may be NaN.

    Example:
        >>> masked_mean(torch.tensor([1.0, 3.0, torch.nan]), torch.tensor([True, True, False]))
        tensor(2.)
    """
    if mask is None:
        return x.sum() / max(x.numel(), 1)
    return torch.where(mask, x, 0).sum() / mask.sum().clamp(min=1)


def zero_masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Put 0 wherever the mask is false; the mask counts in the leading dimensions of ``x``."""
    if mask is None or x.shape[: mask.ndim] != mask.shape:
        return x
    return torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, 0)


def as_tensor(log_prob: Tensor, name: str, x: Tensor | ArrayLike, dtype: torch.dtype | None = None) -> Tensor:
    """Tensor on the device of ``log_prob``, made from what is none yet, or say why that cannot be.

    Args:
        log_prob: has the device.
        name: of the argument.
        x: what is to be a tensor.
        dtype: of what is made from numbers, and then cast to single precision at least; their own if it is None.
    """
    if not isinstance(x, Tensor):
        try:
            made = torch.tensor(x, dtype=None if isinstance(x, SupportsArray) else dtype)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(
                f"{name} must be a tensor, an array, a number or a list of numbers, got {type(x).__name__}; tensors in "
                "a list are joined by torch.stack, and numbers must fit into double precision"
            ) from None
        x = made.to(log_prob.device, made.dtype if dtype is None else at_least_single(made.dtype, log_prob.device))
    if x.is_complex() or (x.is_floating_point() and x.dtype.itemsize < 2):
        raise ValueError(f"{name} must be of real numbers of 16 bits or more, got {x.dtype}; convert it by .float()")
    return x


def broadcast_to_log_prob(log_prob: Tensor, name: str, x: Tensor) -> Tensor:
    """Broadcast ``x`` to the shape of ``log_prob``, or say why that cannot be."""
    try:
        return x.expand(log_prob.shape)
    except RuntimeError:
        raise ValueError(
            f"{name} of shape {tuple(x.shape)} does not broadcast to log_prob of shape {tuple(log_prob.shape)}"
        ) from None


def broadcast_mask(log_prob: Tensor, mask: Tensor | ArrayLike) -> Tensor:
    """Broadcast a mask to the shape of ``log_prob``, or say why that cannot be."""
    mask = as_tensor(log_prob, "mask", mask)
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, true where an element counts, got {mask.dtype}")
    return broadcast_to_log_prob(log_prob, "mask", mask)
