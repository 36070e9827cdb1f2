from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from zoo.gradients.baselines import Baseline, hide
from zoo.gradients.running import RunningScale


def score_function_loss(
    log_prob: Float[Tensor, "*dims"],
    signal: Shaped[Tensor, "..."],
    baseline: Shaped[Tensor, "..."] | float = 0.0,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*dims"]:
    """Elementwise surrogate whose gradient is the score-function estimate of a cost's gradient.

    ``ℓ = log p(x) · (f(x) - b)``, so that ``∇ℓ = (f(x) - b) ∇ log p(x)`` and ``E[∇ℓ] = ∇ E[f(x)]`` for every ``b``
    that does not depend on ``x``. Williams, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning", 1992. Only the gradient has a meaning: the value does not fall as the model learns.

    Args:
        log_prob: ``log p(x)``, ``(*dims)``, in nats.
        signal: ``f(x)``, a cost in its own units, broadcastable to ``(*dims)``. No gradient reaches it.
        baseline: ``b``, in the units of ``signal``, broadcastable to ``(*dims)``. No gradient reaches it.
        mask: broadcastable to ``(*dims)``. At a false element the loss and the gradient that reaches ``log_prob``
            are exactly 0, even where ``log_prob`` or ``signal`` is not finite.

    Returns:
        The loss of each element, ``(*dims)``. Reduce it with a divisor that does not depend on the samples.

    Raises:
        ValueError: a shape does not fit ``log_prob``, or ``mask`` is not boolean.

    Example:
        >>> log_prob = torch.log(torch.tensor([0.5, 0.5], requires_grad=True))
        >>> score_function_loss(log_prob, torch.tensor([1.0, 3.0]), baseline=2.0)
        tensor([ 0.6931, -0.6931], grad_fn=<MulBackward0>)
    """
    signal = fit_to(log_prob, "signal", signal).to(log_prob.dtype)
    baseline = torch.as_tensor(baseline, dtype=log_prob.dtype, device=log_prob.device)
    advantage = (signal - fit_to(log_prob, "baseline", baseline)).detach()
    if mask is not None:
        valid = valid_elements(log_prob, mask)
        log_prob, advantage = torch.where(valid, log_prob, 0), torch.where(valid, advantage, 0)
    return log_prob * advantage


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

    The module keeps what has a state: the baseline and, if asked for, the scale. Both learn in train mode only,
    and only after their values were used. Values are not checked here: whoever trains looks for NaN.

    Args:
        baseline: how to guess the signal; None for no baseline.
        scale: divide the advantage and the baseline's loss by the advantage's running standard deviation, as Mnih &
            Gregor, "Neural variational inference and learning in belief networks", 2014, do; None for neither.
        maximize: the signal is a reward to maximise, not a cost to minimise; as in ``torch.optim``.

    Example:
        >>> from zoo.gradients import LeaveOneOut, Reinforce
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> policy = torch.distributions.Categorical(logits=logits)
        >>> action = policy.sample((64,))
        >>> out = Reinforce(LeaveOneOut(dim=0), maximize=True)(policy.log_prob(action), action == 2)
        >>> out.loss.mean().backward()
        >>> bool(logits.grad.argmin() == 2)  # descending this loss raises the rewarded action's logit
        True
    """

    def __init__(self, baseline: Baseline | None = None, scale: RunningScale | None = None, maximize: bool = False):
        super().__init__()
        self.baseline = Baseline() if baseline is None else baseline
        self.scale = scale
        self.maximize = maximize

    def forward(
        self,
        log_prob: Float[Tensor, "*dims"],
        signal: Shaped[Tensor, "..."],
        context: Shaped[Tensor, "..."] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> ReinforceOutput:
        """Estimate the gradient from one batch of samples.

        Args:
            log_prob: ``log p(x)``, ``(*dims)``, in nats.
            signal: ``f(x)``, broadcastable to ``(*dims)``; numbers or booleans. Detached here.
            context: what a learned baseline may look at, ``(*dims, ...)``. Detached here.
            mask: broadcastable to ``(*dims)``; a false element counts for nothing, whatever stands there.

        Raises:
            ValueError: a shape does not fit ``log_prob``, ``mask`` is not boolean, or the baseline lacks
                what it needs.
        """
        signal = fit_to(log_prob, "signal", signal).detach().to(log_prob.dtype)
        if mask is not None:
            mask = valid_elements(log_prob, mask)
        baseline, baseline_loss = self.baseline(signal, context, mask)
        loss = score_function_loss(log_prob, signal, baseline, mask)
        advantage = hide(signal - baseline, mask)
        if self.scale is not None:
            unscaled, scale = advantage, self.scale.value.to(advantage.dtype)
            loss, baseline_loss, advantage = loss / scale, baseline_loss / scale, unscaled / scale
            if self.scale.training:
                self.scale.update(unscaled, mask)
        return ReinforceOutput(-loss if self.maximize else loss, baseline_loss, advantage, baseline)


def fit_to(log_prob: Tensor, name: str, x: Tensor) -> Tensor:
    """Broadcast ``x`` to the shape of ``log_prob``, or say why that cannot be."""
    try:
        return x.expand(log_prob.shape)
    except RuntimeError:
        raise ValueError(
            f"{name} of shape {tuple(x.shape)} does not broadcast to log_prob of shape {tuple(log_prob.shape)}"
        ) from None


def valid_elements(log_prob: Tensor, mask: Tensor) -> Tensor:
    """Broadcast a mask to the shape of ``log_prob``, or say why that cannot be."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, true where an element counts, got {mask.dtype}")
    return fit_to(log_prob, "mask", mask)
