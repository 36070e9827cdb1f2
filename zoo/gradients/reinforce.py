from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from zoo.gradients._rsample import is_reparameterized
from zoo.gradients._steps import RunningState, begin_or_continue_step, end_step, freeze_within_step
from zoo.gradients._tensors import (
    ArrayLike,
    as_tensor,
    at_least_float32,
    broadcast_mask,
    broadcast_to_log_prob,
    surrogate_loss,
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
    """Return the elementwise surrogate loss of the score-function estimator.

    ``ℓ = log p(x) · (f(x) - b)``. Its gradient ``(f(x) - b) ∇ log p(x)`` is an unbiased estimate of ``∇ E[f(x)]`` for
    every ``b`` that does not depend on ``x``; its value has no meaning. Williams, "Simple statistical
    gradient-following algorithms for connectionist reinforcement learning", 1992.

    The difference is computed in float32 at least, in float64 for long integers and Python numbers, and then cast to
    the dtype of ``log_prob``.

    Args:
        log_prob: ``log p(x)`` of a value from ``sample()``, in nats. A value from ``rsample()``, whose score is 0 or
            wrong, is detected in the autograd graph for normal, Cauchy, exponential, gamma, beta and Dirichlet
            distributions and most of those derived from them.
        signal: ``f(x)``, a cost, broadcastable to ``log_prob``. Detached here.
        baseline: ``b``, broadcastable to ``log_prob``. Detached here.
        mask: false for elements to ignore: their loss and the gradient of ``log_prob`` are exactly 0, even where
            ``log_prob`` or ``signal`` is not finite.

    Returns:
        The loss of each element. Reduce it with a divisor that does not depend on the samples.

    Raises:
        ValueError: a shape does not broadcast to ``log_prob``, ``mask`` is not boolean, or ``log_prob`` is not a
            floating-point tensor, has no gradient although ``signal`` has one, or is of a value from ``rsample()``.

    Example:
        >>> log_prob = torch.log(torch.tensor([0.5, 0.5], requires_grad=True))
        >>> score_function_loss(log_prob, torch.tensor([1.0, 3.0]), baseline=2.0)
        tensor([ 0.6931, -0.6931], grad_fn=<MulBackward0>)
    """
    signal = _learning_signal(log_prob, signal)
    baseline = as_tensor(log_prob, "baseline", baseline, torch.float64).to(log_prob.device)
    advantage = (signal - broadcast_to_log_prob(log_prob, "baseline", baseline)).detach()
    mask = None if mask is None else broadcast_mask(log_prob, mask)
    loss = surrogate_loss(log_prob, zero_masked(advantage, mask), mask)
    _check_not_reparameterized(log_prob)
    return loss


class ReinforceOutput(NamedTuple):
    """Surrogate loss of one batch of samples, with the terms it was computed from.

    Example:
        >>> Reinforce()(log_prob=torch.tensor([-1.0, -2.0]), signal=torch.tensor([3.0, 1.0])).loss
        tensor([-3., -2.])
    """

    loss: Float[Tensor, "*dims"]
    """Elementwise; the gradient of its sum is the score-function estimate."""
    baseline_loss: Float[Tensor, ""]
    """Divided by the scale; trains only the baseline."""
    advantage: Float[Tensor, "*dims"]
    """``(signal - baseline) / scale``, detached."""
    baseline: Float[Tensor, "*dims"]
    """In the units of the signal, detached."""


class Reinforce(nn.Module):
    """REINFORCE with a baseline: the gradient of an expectation over anything that can be sampled.

    ``∇ E[f(x)] = E[(f(x) - b) ∇ log p(x)]``. Williams, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", 1992.

    Baseline and scale are updated in train mode only, after the loss was computed with their old values. All calls
    between two steps of the policy's optimizer use the same values: one that learned from the samples of another call
    would bias the gradient; see ``end_step``. Inputs are not checked for NaN.

    Args:
        baseline: a ``Baseline``; a name for ``make_baseline``, with independent samples in the first dimension; a
            number; or None for none.
        scale: running standard deviation of the advantage, by which advantage and baseline loss are divided.
        maximize: the signal is a reward instead of a cost.

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

    _running_states: list[RunningState]

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

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._running_states = freeze_within_step(self)

    def end_step(self) -> None:
        """End the step: the values of baseline and scale include the calls so far.

        Steps end automatically when an optimizer updates the parameter from which ``log_prob`` was computed, or when
        this parameter was changed in place or replaced. Call this method if neither happens: if no policy is trained
        (``log_prob`` has no gradient), or if the optimizer holds copies or shards of the parameters. In compiled code,
        and if no parameter is found in the graph of ``log_prob``, any ``torch.optim.Optimizer`` ends the step.

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
        """Return the surrogate loss of a batch of samples.

        ``log_prob``, ``signal`` and ``mask`` are those of ``score_function_loss``. ``context`` is the input of a
        learned baseline, ``(*dims, ...)``, detached here.
        """
        signal = _learning_signal(log_prob, signal).detach()
        _check_not_reparameterized(log_prob)
        if self._running_states:
            begin_or_continue_step(self._running_states, log_prob)
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


def _learning_signal(log_prob: Tensor, signal: Tensor | ArrayLike) -> Tensor:
    """Return the signal in the shape of ``log_prob`` and the precision in which baselines are subtracted."""
    if not (isinstance(log_prob, Tensor) and log_prob.is_floating_point()):
        kind = f"a tensor of {log_prob.dtype}" if isinstance(log_prob, Tensor) else type(log_prob).__name__
        raise ValueError(
            f"log_prob must be a floating-point tensor, got {kind}; it comes first, as in reinforce(log_prob, signal)"
        )
    signal = as_tensor(log_prob, "signal", signal, torch.float64)  # the precision of Python's numbers
    if signal.requires_grad and not log_prob.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "log_prob has no gradient, but signal has one: log_prob comes first, as in reinforce(log_prob, signal), "
            "and must be computed with gradients enabled; if the distribution is not trained, detach the signal"
        )
    signal = broadcast_to_log_prob(log_prob, "signal", signal)
    dtype = at_least_float32(signal.dtype, signal.device)
    return signal.to(dtype if dtype == log_prob.dtype else torch.promote_types(log_prob.dtype, dtype))


def _check_not_reparameterized(log_prob: Tensor) -> None:
    if not torch.compiler.is_compiling() and is_reparameterized(log_prob):
        raise ValueError(
            "log_prob is that of a value from rsample(), which depends on the parameters itself, so the score is 0 or "
            "wrong; use sample(), or detach the value"
        )
