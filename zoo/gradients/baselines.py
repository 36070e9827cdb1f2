import difflib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.gradients._steps import RunningState
from zoo.gradients._tensors import at_least_float32, masked_mean, zero_masked
from zoo.gradients.running import RunningMean

Signal = Float[Tensor, "*dims"]
Mask = Bool[Tensor, "*dims"] | None


class BaselineOutput(NamedTuple):
    """Value of a baseline for each signal of a batch, detached, and the loss of its own parameters (0 without any).

    Example:
        >>> ConstantBaseline(2.0)(torch.tensor([1.0, 4.0]))
        BaselineOutput(value=tensor([2., 2.]), loss=tensor(0.))
    """

    value: Float[Tensor, "*dims"]
    loss: Float[Tensor, ""]


class Baseline(RunningState):
    """Base class for baselines.

    A baseline ``b`` is subtracted from the learning signal to reduce the variance of the score-function estimator. It
    must be independent of the sample it is applied to; the estimator then stays unbiased, since
    ``E[∇ log p(x) b] = b ∇ Σ p(x) = 0``. Williams, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning", 1992.

    Subclasses implement ``predict`` and, to learn, ``compute_loss`` for parameters or ``update`` for buffers.
    ``forward`` calls ``predict`` first and learns from the signals afterwards, in train mode only. In a ``Reinforce``,
    all predictions between two steps of the optimizer use the same buffers. The base class predicts 0.

    Example:
        >>> class MedianOfPast(Baseline):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.register_buffer("median", torch.zeros(()))
        ...     def predict(self, signal, context, mask):
        ...         return self.median
        ...     def update(self, signal, mask):
        ...         self.median = signal.median()
        >>> baseline = MedianOfPast()
        >>> [baseline(torch.tensor([1.0, 2.0, 9.0])).value[0].item() for _ in range(2)]
        [0.0, 2.0]
    """

    _step_start: dict[str, Tensor | None] | None  # buffers at the beginning of the step

    compares_samples = False
    """Whether the value for a sample depends on the signals, or importance weights, of other samples."""
    context_depends_on_sample = False
    """Whether the context contains the samples themselves; the value for a sample must not use that sample (VIMCO)."""

    @property
    def updates_buffers(self) -> bool:
        """Whether calls in train mode update buffers."""
        return type(self).update is not Baseline.update

    def forward(self, signal: Signal, context: Tensor | None = None, mask: Mask = None) -> BaselineOutput:
        """Return the baseline of each signal, then learn from the signals where ``mask`` is true."""
        context, dtype = None if context is None else zero_masked(context.detach(), mask), signal.dtype
        signal = zero_masked(signal.detach(), mask).to(at_least_float32(dtype, signal.device))
        prediction = self._predict_within_step(signal, context, mask)
        loss = self.compute_loss(prediction, signal, context, mask)
        value = prediction.detach().expand_as(signal)
        if self.training and self.updates_buffers:
            value = value.clone()  # it may be a buffer, which ``update`` changes
            if self.frozen_within_step and self._step_start is None and self._buffers:
                vars(self)["_step_start"] = {
                    name: None if x is None else x.clone() for name, x in self._buffers.items()
                }
            self.update(signal, mask)
        return BaselineOutput(value.to(dtype), (loss if self.training else loss.detach()).to(dtype))

    def _predict_within_step(self, signal: Signal, context: Tensor | None, mask: Mask) -> Float[Tensor, "..."]:
        """Return the prediction with the buffers of the beginning of the step."""
        if self._step_start is None:
            return self.predict(signal, context, mask)
        current, self._buffers = self._buffers, self._step_start
        try:
            return self.predict(signal, context, mask)
        finally:
            self._buffers = current

    def predict(self, signal: Signal, context: Tensor | None, mask: Mask) -> Float[Tensor, "..."]:
        """Return the baseline, broadcastable to ``signal``; no element may depend on its own signal."""
        return signal.new_zeros(())

    def compute_loss(
        self, prediction: Float[Tensor, "..."], signal: Signal, context: Tensor | None, mask: Mask
    ) -> Float[Tensor, ""]:
        """Return the loss of the baseline's own parameters."""
        return signal.new_zeros(())

    def update(self, signal: Signal, mask: Mask) -> None:
        """Update the buffers, after the prediction."""


class ConstantBaseline(Baseline):
    """The same number for every sample; ``ValueError`` if it is not finite.

    Example:
        >>> ConstantBaseline(0.5)(torch.tensor([0.0, 1.0])).value
        tensor([0.5000, 0.5000])
    """

    value: Tensor

    def __init__(self, value: float):
        super().__init__()
        if not math.isfinite(value):
            raise ValueError(f"a constant baseline must be finite, got {value}")
        self.register_buffer("value", torch.tensor(float(value)))

    def predict(self, signal: Signal, context: Tensor | None, mask: Mask) -> Float[Tensor, ""]:
        """Return the constant."""
        return self.value.to(signal.dtype)


class MovingAverageBaseline(Baseline):
    """Running mean of the signals of earlier batches, ``b_n = E_{i<n}[f_i]``; 0 before the first.

    Exponentially weighted and bias-corrected; see ``RunningMean``. The current batch is not included, as that would
    shrink the gradient. Synchronized over the ranks of ``torch.distributed``.

    Args:
        decay: weight of the past at each batch, in [0, 1).

    Example:
        >>> baseline = MovingAverageBaseline()
        >>> [baseline(torch.tensor([2.0, 4.0])).value[0].item() for _ in range(2)]
        [0.0, 3.0]
    """

    def __init__(self, decay: float = 0.9):
        super().__init__()
        self.mean = RunningMean(decay)

    def predict(self, signal: Signal, context: Tensor | None, mask: Mask) -> Float[Tensor, ""]:
        """Return the mean of earlier batches."""
        return self.mean.value.to(signal.dtype)

    def update(self, signal: Signal, mask: Mask) -> None:
        """Include a batch in the mean."""
        self.mean.update(signal, mask)


class LeaveOneOutBaseline(Baseline):
    """Mean signal of the other samples of the same input.

    ``b_k = 1/(K-1) Σ_{j≠k} f_j``: Kool, van Hoof & Welling, "Buy 4 REINFORCE samples, get a baseline for free!",
    2019. With a mask the mean is over the *valid* others, and 0 if there are none.

    Args:
        dim: dimension of ``log_prob`` with at least 2 independent samples of the same input, all on one rank. It cannot
            be time, since later steps depend on earlier ones.

    Example:
        >>> LeaveOneOutBaseline(dim=0)(torch.tensor([1.0, 2.0, 6.0])).value
        tensor([4.0000, 3.5000, 1.5000])
    """

    compares_samples = True

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def predict(self, signal: Signal, context: Tensor | None, mask: Mask) -> Float[Tensor, "*dims"]:
        """Return the mean of the others."""
        if not -signal.ndim <= self.dim < signal.ndim:
            raise ValueError(
                f"LeaveOneOutBaseline(dim={self.dim}) needs that dimension, "
                f"but log_prob has shape {tuple(signal.shape)}"
            )
        if signal.shape[self.dim] < 2:
            raise ValueError(
                f"LeaveOneOutBaseline(dim={self.dim}) needs at least 2 samples along that dimension, "
                f"but log_prob has shape {tuple(signal.shape)}; draw more samples or use another baseline"
            )
        valid = torch.ones_like(signal) if mask is None else mask.to(signal.dtype)
        others = valid.sum(self.dim, keepdim=True) - valid
        return (signal.sum(self.dim, keepdim=True) - signal) / others.clamp(min=1)


class LearnedBaseline(Baseline):
    """Prediction of the signal by a network, from a context ``c`` that was known before the sample was drawn.

    ``b(c)`` minimizes ``mean (b(c) - f)²`` over the valid elements: the state value of actor-critic methods, the
    input-dependent baseline of Mnih & Gregor, "Neural variational inference and learning in belief networks", 2014.

    Args:
        net: maps the context ``(*dims, ...)`` to ``(*dims)`` or ``(*dims, 1)``.

    Example:
        >>> out = LearnedBaseline(nn.Linear(3, 1))(torch.ones(5), context=torch.zeros(5, 3))
        >>> out.value.shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def predict(self, signal: Signal, context: Tensor | None, mask: Mask) -> Float[Tensor, "*dims"]:
        """Return the prediction of the network."""
        if context is None:
            raise ValueError("LearnedBaseline needs context=, the input of its network")
        prediction: Tensor = self.net(context)
        if prediction.shape == (*signal.shape, 1):
            prediction = prediction.squeeze(-1)
        if prediction.shape != signal.shape:
            raise ValueError(
                f"the network of LearnedBaseline must return shape {tuple(signal.shape)} "
                f"or {(*signal.shape, 1)}, got {tuple(prediction.shape)}"
            )
        return prediction.to(at_least_float32(prediction.dtype, prediction.device))

    def compute_loss(
        self, prediction: Float[Tensor, "*dims"], signal: Signal, context: Tensor | None, mask: Mask
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the valid predictions, in the precision of the network."""
        return masked_mean((prediction - signal.to(prediction.dtype)) ** 2, mask)


class SumBaseline(Baseline):
    """Sum of several baselines, each fitted to the residual of those before it.

    ``b = Σ_i b_i``, with ``b_i`` applied to ``f - Σ_{j<i} b_j``; Mnih & Gregor, "Neural variational inference and
    learning in belief networks", 2014, add a moving average and a network.

    Raises:
        ValueError: there is no member, or the sum would be biased: a baseline occurs twice, more than one compares
            samples, or a ``LearnedBaseline`` is combined with a member whose context contains the sample.

    Example:
        >>> baseline = SumBaseline(ConstantBaseline(1.0), LeaveOneOutBaseline(dim=0))
        >>> baseline(torch.tensor([1.0, 2.0, 6.0])).value
        tensor([4.0000, 3.5000, 1.5000])
    """

    def __init__(self, *members: Baseline):
        super().__init__()
        if not members:
            raise ValueError("SumBaseline needs at least one baseline")
        self.members = nn.ModuleList(members)
        parts = [part for _, part in self.named_modules(remove_duplicate=False) if isinstance(part, Baseline)]
        if len(set(parts)) < len(parts):  # the second call would use what the first has learned from this sample
            raise ValueError("SumBaseline was given the same baseline twice; make a separate one for each place")
        comparing = [type(part).__name__ for part in parts if part.compares_samples]
        if len(comparing) > 1:  # residuals of the first depend on the sample that the second must leave out
            raise ValueError(
                f"SumBaseline can hold one {comparing[0]} at most, and no other baseline that compares samples, got "
                f"{comparing[1]}: a second one would bias the gradient"
            )
        if any(part.context_depends_on_sample for part in parts) and any(isinstance(x, LearnedBaseline) for x in parts):
            raise ValueError(
                f"SumBaseline cannot hold both a LearnedBaseline and {comparing[0]}: the context of {comparing[0]} "
                "contains the sample, which the network must not depend on"
            )

    def forward(self, signal: Signal, context: Tensor | None = None, mask: Mask = None) -> BaselineOutput:
        """Return the sum; each member gets the residual of those before it."""
        residual = signal.to(at_least_float32(signal.dtype, signal.device))
        value, loss = torch.zeros_like(residual), residual.new_zeros(())
        for member in self.members:
            output = member(residual, context, mask)
            residual = residual - output.value
            value, loss = value + output.value, loss + output.loss
        return BaselineOutput(value.to(signal.dtype), loss.to(signal.dtype))


_MakeNet = Callable[[], nn.Module]
_MAKERS: dict[str, Callable[[_MakeNet, int, float], Baseline]] = {
    "none": lambda make_net, dim, decay: Baseline(),
    "moving_average": lambda make_net, dim, decay: MovingAverageBaseline(decay),
    "leave_one_out": lambda make_net, dim, decay: LeaveOneOutBaseline(dim),
    "learned": lambda make_net, dim, decay: LearnedBaseline(make_net()),
    "learned_leave_one_out": lambda make_net, dim, decay: SumBaseline(
        LearnedBaseline(make_net()), LeaveOneOutBaseline(dim)
    ),
    "learned_moving_average": lambda make_net, dim, decay: SumBaseline(
        MovingAverageBaseline(decay), LearnedBaseline(make_net())
    ),
}
BASELINES = tuple(_MAKERS)
"""Names that ``make_baseline`` accepts."""


def make_baseline(
    name: str,
    *,
    make_net: _MakeNet | None = None,
    sample_dim: int = 0,
    decay: float = 0.9,
    extra: Sequence[str] = (),
) -> Baseline:
    """Return a baseline by name.

    Args:
        name: one of ``BASELINES``, or a number for a constant. ``learned_leave_one_out`` is leave-one-out on the
            residuals of a network, ``learned_moving_average`` a network on the residuals of a moving average.
        make_net: returns the network of a learned baseline.
        sample_dim: ``dim`` of ``LeaveOneOutBaseline``.
        decay: ``decay`` of ``MovingAverageBaseline``.
        extra: further names that the caller supports, for the error message.

    Example:
        >>> make_baseline("leave_one_out", sample_dim=1)
        LeaveOneOutBaseline()
    """
    if name in _MAKERS:
        if make_net is None and name.startswith("learned"):
            raise ValueError(f"the baseline {name!r} needs a network: use LearnedBaseline(net) instead of its name")
        return _MAKERS[name](make_net, sample_dim, decay)  # type: ignore[arg-type]
    try:
        return ConstantBaseline(float(name))
    except ValueError:
        known = [*BASELINES, *extra]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f". Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"there is no baseline {name!r}; choose one of {', '.join(known)}, or a number{hint}"
        ) from None
