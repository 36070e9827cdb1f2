import difflib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.gradients._steps import Learner
from zoo.gradients._tensors import at_least_single, masked_mean, zero_masked
from zoo.gradients.running import RunningMean


class BaselineOutput(NamedTuple):
    """What a baseline says of one batch of learning signals."""

    value: Float[Tensor, "*dims"]
    """The baseline, detached, in the signal's units."""
    loss: Float[Tensor, ""]
    """What the baseline's own parameters minimise; 0 where there are none."""


class Baseline(Learner):
    """A guess of the learning signal that does not depend on the sample it is compared with.

    ``E[∇ log p(x) b] = b ∇ Σ p(x) = 0``: subtracting ``b`` leaves the score-function gradient's expectation as it
    is and can take away most of its variance. Williams, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", 1992.

    A subclass says how to ``predict`` and, if it learns, how to ``fit`` its parameters or ``update`` its buffers.
    The order stands here once: the value is taken first and learned from later, in train mode only, and leaves
    detached. Within a step of a ``Reinforce`` it is what the buffers were when the step began. Baseline itself
    predicts 0.
    """

    _step: dict[str, Tensor | None] | None
    """Buffers when the present step began."""

    compares_samples = False
    """Whether the value for one sample depends on the signals or weights of others."""
    context_holds_sample = False
    """Whether its context depends on the sample that it is compared with."""

    @property
    def learns(self) -> bool:
        """Whether it updates buffers when it is used."""
        return type(self).update is not Baseline.update

    def forward(
        self,
        signal: Float[Tensor, "*dims"],
        context: Tensor | None = None,
        mask: Bool[Tensor, "*dims"] | None = None,
    ) -> BaselineOutput:
        """Give the baseline of each signal, then learn from the signals.

        Args:
            signal: learning signals; the elements of one batch.
            context: what a learned baseline may look at, ``(*dims, ...)``. Detached here.
            mask: false where the signal is to be ignored.
        """
        context, dtype = None if context is None else zero_masked(context.detach(), mask), signal.dtype
        signal = zero_masked(signal.detach(), mask).to(at_least_single(dtype, signal.device))
        prediction = self._predict_as_at_the_start(signal, context, mask)
        loss = self.fit(prediction, signal, context, mask)
        value = prediction.detach().expand_as(signal)
        if self.training and self.learns:
            value = value.clone()  # as it may be a buffer, which is changed now
            if self.once_a_step and self._step is None and self._buffers:
                vars(self)["_step"] = {name: None if x is None else x.clone() for name, x in self._buffers.items()}
            self.update(signal, mask)
        return BaselineOutput(value.to(dtype), (loss if self.training else loss.detach()).to(dtype))

    def _predict_as_at_the_start(self, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Value of the baseline, with the buffers that it had when the step began."""
        if self._step is None:
            return self.predict(signal, context, mask)
        learned, self._buffers = self._buffers, self._step
        try:
            return self.predict(signal, context, mask)
        finally:
            self._buffers = learned

    def predict(self, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Value of the baseline, broadcastable to ``signal``; must not depend on the element it is for."""
        return signal.new_zeros(())

    def fit(self, prediction: Tensor, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Loss of the baseline's own parameters."""
        return signal.new_zeros(())

    def update(self, signal: Tensor, mask: Tensor | None) -> None:
        """Change the baseline's buffers, after its value was used."""


class ConstantBaseline(Baseline):
    """The same number for every sample.

    Args:
        value: the baseline, in the signal's units.

    Raises:
        ValueError: it is not finite.

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

    def predict(self, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Give the constant."""
        return self.value.to(signal.dtype)


class MovingAverageBaseline(Baseline):
    """Running mean of the signals of earlier batches; 0 before the first.

    ``b_n = E_{i<n}[f_i]``, exponentially weighted and free of the bias of its start. Never includes the batch it
    is used on, which would shrink the gradient; inside a ``Reinforce`` it never includes the step it is used in,
    however often that calls it. Synchronised over the ranks of ``torch.distributed``.

    Args:
        decay: weight of the past at each batch, in [0, 1).

    Raises:
        ValueError: ``decay`` lies outside [0, 1).

    Example:
        >>> baseline = MovingAverageBaseline()
        >>> baseline(torch.tensor([2.0, 4.0])).value
        tensor([0., 0.])
        >>> baseline(torch.tensor([9.0, 9.0])).value
        tensor([3., 3.])
    """

    def __init__(self, decay: float = 0.9):
        super().__init__()
        self.mean = RunningMean(decay)

    def predict(self, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Give the mean of earlier batches."""
        return self.mean.value.to(signal.dtype)

    def update(self, signal: Tensor, mask: Tensor | None) -> None:
        """Learn from this batch."""
        self.mean.update(signal, mask)


class LeaveOneOutBaseline(Baseline):
    """Mean signal of the other samples of the same input.

    ``b_k = 1/(K-1) Σ_{j≠k} f_j``: Kool, van Hoof & Welling, "Buy 4 REINFORCE samples, get a baseline for free!",
    2019. Under a mask the mean runs over the *valid* others; an element with none gets 0.

    Args:
        dim: dimension of ``log_prob`` that holds independent samples of the same input. Never time: later steps
            depend on earlier ones, and the gradient would be biased. Under ``torch.distributed`` the samples of
            one input have to be on one rank.

    Raises:
        ValueError: the signals have no dimension ``dim``, or fewer than 2 samples along it.

    Example:
        >>> LeaveOneOutBaseline(dim=0)(torch.tensor([1.0, 2.0, 6.0])).value
        tensor([4.0000, 3.5000, 1.5000])
    """

    compares_samples = True

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def predict(self, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Give the mean of the others."""
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
    """A network's guess of the signal from what was known before the sample was drawn.

    ``b(c)`` fitted by ``mean (b(c) - f)²`` over the valid elements: the state value of actor-critic methods, the
    input-dependent baseline of Mnih & Gregor, "Neural variational inference and learning in belief networks",
    2014.

    Args:
        net: maps the context ``(*dims, ...)`` to ``(*dims)`` or ``(*dims, 1)``. The context is detached, so that
            the fit trains nothing but ``net``; it must not hold the sample that the signal judges.

    Raises:
        ValueError: there is no context, or ``net`` gives another shape.

    Example:
        >>> out = LearnedBaseline(nn.Linear(3, 1))(torch.ones(5), context=torch.zeros(5, 3))
        >>> out.value.shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def predict(self, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Give the network's guess."""
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
        return prediction.to(at_least_single(prediction.dtype, prediction.device))

    def fit(self, prediction: Tensor, signal: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Mean squared error of the valid guesses, in the network's precision."""
        return masked_mean((prediction - signal.to(prediction.dtype)) ** 2, mask)


class SumBaseline(Baseline):
    """Several baselines added up; each fits what those before it left over.

    ``b = Σ_i b_i``, with ``b_i`` fed ``f - Σ_{j<i} b_j``; as in Mnih & Gregor, "Neural variational inference and
    learning in belief networks", 2014, who add a moving average and a network.

    Args:
        members: the baselines, in the order in which they fit.

    Raises:
        ValueError: there is no member, or one occurs twice and would learn from the batch before its second use,
            or more than one compares samples, as ``LeaveOneOutBaseline`` does: what the first leaves over
            already holds the sample that the second must leave out; or one is a ``LearnedBaseline`` where the context
            is made from the sample, as that of a ``ControlVariate``. Each would bias the gradient.

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
        if len(set(parts)) < len(parts):
            raise ValueError("SumBaseline was given the same baseline twice; make a separate one for each place")
        comparing = [type(part).__name__ for part in parts if part.compares_samples]
        if len(comparing) > 1:
            raise ValueError(
                f"SumBaseline can hold one {comparing[0]} at most, and no other baseline that compares samples, got "
                f"{comparing[1]}: a second one would bias the gradient"
            )
        if any(part.context_holds_sample for part in parts) and any(
            isinstance(part, LearnedBaseline) for part in parts
        ):
            raise ValueError(
                f"SumBaseline cannot hold a LearnedBaseline beside {comparing[0]}, whose context is made from the "
                "sample that the network must not see"
            )

    def forward(
        self,
        signal: Float[Tensor, "*dims"],
        context: Tensor | None = None,
        mask: Bool[Tensor, "*dims"] | None = None,
    ) -> BaselineOutput:
        """Let each member answer for the residual of those before it."""
        residual = signal.to(at_least_single(signal.dtype, signal.device))
        value, loss = torch.zeros_like(residual), residual.new_zeros(())
        for member in self.members:
            output = member(residual, context, mask)
            residual = residual - output.value
            value, loss = value + output.value, loss + output.loss
        return BaselineOutput(value.to(signal.dtype), loss.to(signal.dtype))


BASELINES = (
    "none",
    "moving_average",
    "leave_one_out",
    "learned",
    "learned_leave_one_out",
    "learned_moving_average",
)
"""Names that ``make_baseline`` accepts."""


def make_baseline(
    name: str,
    *,
    net: Callable[[], nn.Module] | None = None,
    sample_dim: int = 0,
    decay: float = 0.9,
    extra: Sequence[str] = (),
) -> Baseline:
    """Make a baseline from its name, as configurations give it.

    Args:
        name: one of ``none``, ``moving_average``, ``leave_one_out``, ``learned`` (a network's guess from the
            context), ``learned_leave_one_out`` (the former, and what it leaves over by leave-one-out),
            ``learned_moving_average`` (a moving average, and what it leaves over learned); or a number, for a constant.
        net: makes the network; see ``Learned``. Only those that learn need one.
        sample_dim: dimension of ``log_prob`` that holds independent samples of the same input.
        decay: weight of the past in a moving average.
        extra: other names, which the caller knows what to do with; an error tells of them.

    Raises:
        ValueError: no baseline has that name, or it needs a network and there is none.

    Example:
        >>> make_baseline("leave_one_out", sample_dim=1)
        LeaveOneOutBaseline()
    """
    if net is None and name.startswith("learned") and name in BASELINES:
        raise ValueError(f"the baseline {name!r} needs a network: give LearnedBaseline(net) in the place of its name")
    match name:
        case "none":
            return Baseline()
        case "moving_average":
            return MovingAverageBaseline(decay)
        case "leave_one_out":
            return LeaveOneOutBaseline(sample_dim)
        case "learned":
            return LearnedBaseline(net())  # type: ignore[misc]
        case "learned_leave_one_out":
            return SumBaseline(LearnedBaseline(net()), LeaveOneOutBaseline(sample_dim))  # type: ignore[misc]
        case "learned_moving_average":
            return SumBaseline(MovingAverageBaseline(decay), LearnedBaseline(net()))  # type: ignore[misc]
    try:
        return ConstantBaseline(float(name))
    except ValueError:
        known = [*BASELINES, *extra]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f". Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"there is no baseline {name!r}; choose one of {', '.join(known)}, or a number{hint}"
        ) from None
