from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.gradients._steps import RunningState


class _Step(NamedTuple):
    """State of a running mean at the beginning of a step, and the sum and number of the step's elements so far."""

    total: Tensor
    weight: Tensor
    sum_and_count: Float[Tensor, "2"]


class RunningMean(RunningState):
    """Exponentially weighted mean with bias correction.

    ``m_n = (1 - d) Σ_i d^(n-i) x̄_i / (1 - d^n)``, with ``x̄_i`` the mean over the valid elements of update ``i``:
    Kingma & Ba, "Adam: A method for stochastic optimization", 2015. With ``torch.distributed``, ``x̄_i`` is the mean
    over all ranks. An update without a valid element has no effect. In a ``Reinforce``, all updates of one optimizer
    step count as one.

    Args:
        decay: ``d``, weight of the past at each update, in [0, 1).

    Example:
        >>> mean = RunningMean(decay=0.5)
        >>> mean.value
        tensor(0.)
        >>> mean.update(torch.tensor([2.0, 4.0]))
        >>> mean.value
        tensor(3.)
    """

    total: Tensor
    weight: Tensor
    _step_start: _Step | None

    def __init__(self, decay: float):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RunningMean":
        """Move or cast the buffers, but never to half precision, which loses small updates."""

        def move_or_cast(x: Tensor) -> Tensor:
            y = fn(x)
            return x.to(y.device) if y.dtype in (torch.float16, torch.bfloat16) else y

        super()._apply(move_or_cast, recurse)
        return self

    @property
    def value(self) -> Float[Tensor, ""]:
        """The mean at the beginning of the optimizer step, in a ``Reinforce``; 0 before the first update."""
        total, weight = (self.total, self.weight) if self._step_start is None else self._step_start[:2]
        return total / torch.where(weight > 0, weight, 1)

    @torch.no_grad()
    def update(self, x: Float[Tensor, "*dims"], mask: Bool[Tensor, "*dims"] | None = None) -> None:
        """Include the valid elements of ``x``."""
        x = x.to(self.total.dtype)
        if mask is None:
            sum_and_count = torch.stack([x.sum(), x.new_full((), x.numel())])
        else:
            sum_and_count = torch.stack([torch.where(mask, x, 0).sum(), mask.sum()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sum_and_count)
        step = _Step(self.total, self.weight, sum_and_count)
        if self._step_start is not None:
            step = self._step_start._replace(sum_and_count=self._step_start.sum_and_count + sum_and_count)
        total, count = step.sum_and_count
        share = (1 - self.decay) * (count > 0).to(count.dtype)
        # New tensors: a compiled backward pass may still read the old ones, and vmap does not allow writing to them.
        # They are assigned to ``_buffers``, as Module.__setattr__ is slow.
        self._buffers["total"] = step.total.clone().lerp_(total / count.clamp(min=1), share)
        self._buffers["weight"] = step.weight.clone().lerp_(torch.ones_like(step.weight), share)
        if self.frozen_within_step:
            vars(self)["_step_start"] = step


class RunningStd(nn.Module):
    """Running standard deviation of the advantage, with a lower bound.

    ``c = max(floor, sqrt(E[A²] - E[A]²))`` with running means: the variance normalization of Mnih & Gregor, "Neural
    variational inference and learning in belief networks", 2014, whose floor is 1. Dividing the learning signal by it
    makes the policy's step size independent of the scale of the signal. It does not depend on the current samples, so
    the expectation of the estimate is the gradient divided by ``c``.

    Args:
        decay: weight of the past at each update, in [0, 1).
        floor: smallest value, in the units of the signal; also the value before the first update.

    Example:
        >>> scale = RunningStd(decay=0.5)
        >>> scale.update(torch.tensor([-4.0, 4.0]))
        >>> scale.value
        tensor(4.)
    """

    def __init__(self, decay: float = 0.9, floor: float = 1.0):
        super().__init__()
        if not floor > 0:
            raise ValueError(f"floor must be positive, got {floor}")
        self.floor = floor
        self.mean = RunningMean(decay)
        self.mean_square = RunningMean(decay)

    @property
    def value(self) -> Float[Tensor, ""]:
        """The standard deviation, in the units of the signal."""
        variance = self.mean_square.value - self.mean.value**2
        return variance.clamp(min=0).sqrt().clamp(min=self.floor)

    def update(self, advantage: Float[Tensor, "*dims"], mask: Bool[Tensor, "*dims"] | None = None) -> None:
        """Include the valid elements of an unscaled advantage."""
        self.mean.update(advantage, mask)
        self.mean_square.update(advantage.to(self.mean_square.total.dtype) ** 2, mask)
