"""Targets and losses of Q-learning: Watkins, "Learning from delayed rewards", 1989."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

LOSSES = ("squared", "huber")


def q_learning_target(
    reward: Float[Tensor, "*batch"],
    terminated: Bool[Tensor, "*batch"],
    next_q: Float[Tensor, "*batch actions"],
    discount: float | Float[Tensor, "*batch"],
    q_selector: Float[Tensor, "*batch actions"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Return the target ``r + γ max_a Q(s', a)``, or ``r`` where the episode terminated, without a gradient.

    Args:
        reward: ``r``, or the discounted sum over ``n`` steps.
        terminated: whether the last of these steps terminated. A truncated step bootstraps like any other.
        next_q: ``Q(s', ·)`` of the state after the last of these steps.
        discount: ``γ``, or ``γⁿ`` for ``n`` steps.
        q_selector: values that select the action evaluated by ``next_q``, as in van Hasselt, Guez & Silver, "Deep
            reinforcement learning with double Q-learning", 2016; by default ``next_q``.

    Example:
        >>> next_q = torch.tensor([[1.0, 5.0], [1.0, 5.0]])
        >>> q_learning_target(torch.tensor([1.0, 1.0]), torch.tensor([False, True]), next_q, discount=0.5)
        tensor([3.5000, 1.0000])
    """
    if q_selector is None:
        next_value = next_q.amax(-1)
    else:
        next_value = next_q.gather(-1, q_selector.argmax(-1, keepdim=True)).squeeze(-1)
    return (reward + torch.where(terminated, 0, discount * next_value)).detach()


def td_loss(
    q: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"], kind: str = "squared"
) -> Float[Tensor, "*batch"]:
    """Return half the squared TD error ``½ (y - Q(s, a))²`` of each element, without a gradient of the target.

    The Huber loss clips the gradient to ±1, as in Mnih et al., "Human-level control through deep reinforcement
    learning", 2015.

    Raises:
        ValueError: ``kind`` is neither ``squared`` nor ``huber``.

    Example:
        >>> td_loss(torch.zeros(2), torch.tensor([0.5, 3.0]))
        tensor([0.1250, 4.5000])
        >>> td_loss(torch.zeros(2), torch.tensor([0.5, 3.0]), "huber")
        tensor([0.1250, 2.5000])
    """
    if kind == "squared":
        return F.mse_loss(q, target.detach(), reduction="none") / 2
    if kind == "huber":
        return F.huber_loss(q, target.detach(), reduction="none")
    raise ValueError(f"there is no loss {kind!r}; choose one of {', '.join(LOSSES)}")


def visit_weights(entry: Int[Tensor, " batch"], step_size: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return weights of a table's losses under which one gradient step equals sequential textbook updates.

    A textbook update is ``Q ← Q + α (y - Q)``. If a batch visits an entry ``n`` times, ``n`` updates move it by
    ``1 - (1 - α)ⁿ`` of the way to the targets. Each visit gets the weight ``(1 - (1 - α)ⁿ) / n``, the mean over all
    orders of the visits. With the weight ``α`` a step would overshoot if ``n α > 2``.

    ``step_size`` is ``α`` of each element, equal for those that visit the same entry.

    Example:
        >>> visit_weights(torch.tensor([7, 3, 3]), torch.tensor([0.5, 0.5, 0.5]))
        tensor([0.5000, 0.3750, 0.3750])
    """
    visits = entry.bincount()[entry]
    return (1 - (1 - step_size) ** visits) / visits
