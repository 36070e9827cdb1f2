from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from zoo.gradients._rsample import carries_its_path
from zoo.gradients._steps import Learner, begin_or_continue_step, end_step, once_a_step
from zoo.gradients._tensors import (
    ArrayLike,
    as_tensor,
    at_least_single,
    broadcast_mask,
    broadcast_to_log_prob,
    zero_masked,
)
from zoo.gradients.baselines import Baseline, make_baseline
from zoo.gradients.running import RunningStd


def score_function_loss(
    log_prob: Float[Tensor, "*dims"],
    signal: Shaped[Tensor, "..."] | ArrayLike,
    baseline: Shaped[Tensor, "..."] | ArrayLike = 0.0,
    mask: Bool[Tensor, "..."] | ArrayLike | None = None,
) -> Float[Tensor, "*dims"]:
    """Elementwise surrogate whose gradient is the score-function estimate of a cost's gradient.

    ``ℓ = log p(x) · (f(x) - b)``, so that ``∇ℓ = (f(x) - b) ∇ log p(x)`` and ``E[∇ℓ] = ∇ E[f(x)]`` for every ``b``
    that does not depend on ``x``. Williams, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning", 1992. Only the gradient has a meaning: the value does not fall as the model learns.

    The difference is taken in the signal's own precision, float32 at least and float64 for long integers and Python's
    numbers; then it is cast to that of ``log_prob``.

    Args:
        log_prob: ``log p(x)``, ``(*dims)``, in nats, of a value from ``sample()``: one from ``rsample()`` carries a
            path of its own, and its score is 0. That is seen of normal, Cauchy, exponential, gamma, beta and Dirichlet
            distributions and most that are made of them, but not of Gumbel, Weibull, Pareto, uniform, relaxed and
            Wishart distributions nor of flows, whose graphs do not show it.
        signal: ``f(x)``, a cost in its own units, broadcastable to ``(*dims)``: a tensor, an array, a number or a list
            of numbers. No gradient reaches it.
        baseline: ``b``, in the units of ``signal``, broadcastable to ``(*dims)``. No gradient reaches it.
        mask: broadcastable to ``(*dims)``. At a false element the loss and the gradient that reaches ``log_prob``
            are exactly 0, even where ``log_prob`` or ``signal`` is not finite.

    Returns:
        The loss of each element, ``(*dims)``. Reduce it with a divisor that does not depend on the samples.

    Raises:
        ValueError: a shape does not fit ``log_prob``, ``mask`` is not boolean, ``log_prob`` is no floating-point
            tensor, has no gradient where the signal has one, or is known to be that of a value from ``rsample()``.

    Example:
        >>> log_prob = torch.log(torch.tensor([0.5, 0.5], requires_grad=True))
        >>> score_function_loss(log_prob, torch.tensor([1.0, 3.0]), baseline=2.0)
        tensor([ 0.6931, -0.6931], grad_fn=<MulBackward0>)
    """
    signal = learning_signal(log_prob, signal)
    baseline = as_tensor(log_prob, "baseline", baseline, torch.float64).to(log_prob.device)
    advantage = (signal - broadcast_to_log_prob(log_prob, "baseline", baseline)).detach()
    mask = None if mask is None else broadcast_mask(log_prob, mask)
    loss = surrogate_loss(log_prob, zero_masked(advantage, mask), mask)
    refuse_a_path(log_prob)
    return loss


class ReinforceOutput(NamedTuple):
    """One score-function estimate and what it was made of."""

    loss: Float[Tensor, "*dims"]
    """Elementwise; the gradient of its sum is the estimate."""
    baseline_loss: Float[Tensor, ""]
    """Mean over the valid elements, divided by the scale; reaches the baseline's own parameters only."""
    advantage: Float[Tensor, "*dims"]
    """``(signal - baseline) / scale``, detached."""
    baseline: Float[Tensor, "*dims"]
    """In the signal's units, detached."""


class Reinforce(nn.Module):
    """REINFORCE with a baseline: the gradient of an expectation over anything that can be sampled.

    ``∇ E[f(x)] = E[(f(x) - b) ∇ log p(x)]``. Williams, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", 1992.

    The module keeps what has a state: the baseline and, if asked for, the scale. Both learn in train mode only, and
    only after their values were used: they advance when the parameters move, not at each call, so that no call is
    compared with what another of the same step has cost. That is when an optimizer that holds the parameter from which
    ``log_prob`` was computed takes its step, or when the parameter is found changed in place or replaced; see
    ``end_step`` for all else. Use the signals of one step in that step alone. Values are not checked here: whoever
    trains looks for NaN.

    Args:
        baseline: how to guess the signal; None for no baseline. Or its name, see ``make_baseline``, with independent
            samples in the first dimension; or a number, for a constant.
        scale: divide the advantage and the baseline's loss by the advantage's running standard deviation, as Mnih &
            Gregor, "Neural variational inference and learning in belief networks", 2014, do; None for neither.
        maximize: the signal is a reward to maximise, not a cost to minimise; as in ``torch.optim``.

    Raises:
        ValueError: there is no such baseline, or ``scale`` is no ``RunningStd``.

    Example:
        >>> from zoo.gradients import LeaveOneOutBaseline, Reinforce
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> policy = torch.distributions.Categorical(logits=logits)
        >>> action = policy.sample((64,))
        >>> out = Reinforce(LeaveOneOutBaseline(dim=0), maximize=True)(policy.log_prob(action), action == 2)
        >>> out.loss.mean().backward()
        >>> bool(logits.grad.argmin() == 2)  # descending this loss raises the rewarded action's logit
        True
    """

    def __init__(
        self, baseline: Baseline | str | float | None = None, scale: RunningStd | None = None, maximize: bool = False
    ):
        super().__init__()
        if not isinstance(baseline, Baseline | str | float | int | None):
            raise ValueError(f"baseline must be a Baseline, the name of one, a number or None, got {baseline!r}")
        if not isinstance(scale, RunningStd | None):
            raise ValueError(f"scale must be a RunningStd or None, got {scale!r}")
        if baseline is None:
            baseline = Baseline()
        self.baseline = baseline if isinstance(baseline, Baseline) else make_baseline(str(baseline))
        self.scale = scale
        self.maximize = maximize

    _learners: list[Learner]
    """Parts whose value stays the same during a step."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._learners = once_a_step(self)

    @property
    def _learns(self) -> bool:
        return bool(self._learners)

    def end_step(self) -> None:
        """Let baseline and scale advance to what they have learned, as the step of the policy's optimizer does.

        Until the step ends all calls are compared with the same baseline, as one call with all their samples would be.
        Calls whose ``log_prob`` has no gradient belong to the step, too, and end none: a later call may have the same
        signal. So call this where no policy learns (an evaluation in train mode) and where an optimizer holds copies
        of the parameters or shards of them, not themselves. In compiled code, and where no parameter is found in the
        graph of ``log_prob``, the step of any ``torch.optim.Optimizer`` counts.

        Example:
            >>> estimator = Reinforce("moving_average")
            >>> log_prob = torch.zeros(2, requires_grad=True)
            >>> [estimator(log_prob, 3.0).baseline[0].item() for _ in range(2)]
            [0.0, 0.0]
            >>> estimator.end_step()
            >>> estimator(log_prob, 3.0).baseline
            tensor([3., 3.])
        """
        end_step(self)

    def forward(
        self,
        log_prob: Float[Tensor, "*dims"],
        signal: Shaped[Tensor, "..."] | ArrayLike,
        context: Shaped[Tensor, "..."] | ArrayLike | None = None,
        mask: Bool[Tensor, "..."] | ArrayLike | None = None,
    ) -> ReinforceOutput:
        """Estimate the gradient from one batch of samples.

        Args:
            log_prob: ``log p(x)``, ``(*dims)``, in nats, of a value from ``sample()``, not ``rsample()``.
            signal: ``f(x)``, broadcastable to ``(*dims)``: a tensor, an array, a number or a list, of numbers or
                booleans. Detached here.
            context: what a learned baseline may look at, ``(*dims, ...)``: a tensor, an array or a list. Detached here.
            mask: broadcastable to ``(*dims)``; a false element counts for nothing, whatever stands there.

        Raises:
            ValueError: a shape does not fit ``log_prob``, ``mask`` is not boolean, the baseline lacks what it needs,
                ``log_prob`` is no floating-point tensor, has no gradient where the signal has one, or is known to be
                that of a value from ``rsample()``.
        """
        signal = learning_signal(log_prob, signal).detach()
        refuse_a_path(log_prob)
        if self._learns:
            begin_or_continue_step(self._learners, log_prob)
        if mask is not None:
            mask = broadcast_mask(log_prob, mask)
        if context is not None and not isinstance(context, Tensor):
            context = as_tensor(log_prob, "context", context)
            context = context.to(log_prob.dtype) if context.is_floating_point() else context
        baseline, baseline_loss = self.baseline(signal, context, mask)
        advantage = zero_masked(signal - baseline, mask)
        if self.scale is not None:
            unscaled, scale = advantage, self.scale.value.to(advantage.dtype)
            baseline_loss, advantage = baseline_loss / scale, unscaled / scale
            if self.scale.training:
                self.scale.update(unscaled, mask)
        loss = surrogate_loss(log_prob, advantage, mask)
        loss = -loss if self.maximize else loss
        return ReinforceOutput(loss, *(x.to(log_prob.dtype) for x in (baseline_loss, advantage, baseline)))


def surrogate_loss(log_prob: Tensor, advantage: Tensor, mask: Tensor | None) -> Tensor:
    """Product of log-probability and advantage, which is 0 already at false elements of the mask."""
    return zero_masked(log_prob, mask) * advantage.to(log_prob.dtype)


def learning_signal(log_prob: Tensor, signal: Tensor | ArrayLike) -> Tensor:
    """Signal as a tensor of the shape of ``log_prob``, in the precision that baselines are subtracted in."""
    if not (isinstance(log_prob, Tensor) and log_prob.is_floating_point()):
        kind = f"a tensor of {log_prob.dtype}" if isinstance(log_prob, Tensor) else type(log_prob).__name__
        raise ValueError(
            f"log_prob must be a floating-point tensor, got {kind}; it comes first, as in reinforce(log_prob, signal)"
        )
    signal = as_tensor(log_prob, "signal", signal, torch.float64)  # which Python's numbers have
    if signal.requires_grad and not log_prob.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "log_prob has no gradient, but signal has one: log_prob comes first, as in reinforce(log_prob, signal), "
            "and is computed with gradients on; where the distribution is not to be trained, detach the signal"
        )
    signal = broadcast_to_log_prob(log_prob, "signal", signal)
    dtype = at_least_single(signal.dtype, signal.device)
    return signal.to(dtype if dtype == log_prob.dtype else torch.promote_types(log_prob.dtype, dtype))


def refuse_a_path(log_prob: Tensor) -> None:
    """Raise an error if a log-probability is known to be that of a value from ``rsample()``."""
    if not torch.compiler.is_compiling() and carries_its_path(log_prob):
        raise ValueError(
            "log_prob is that of a value from rsample(), which carries its own path to the parameters, so that the "
            "score is 0 or wrong; use sample(), or detach the value"
        )
