"""Q-learning's target and loss: Watkins, "Learning from delayed rewards", 1989."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

LOSSES = ("squared", "huber")


def q_target(
    reward: Float[Tensor, "*batch"],
    terminated: Bool[Tensor, "*batch"],
    next_values: Float[Tensor, "*batch actions"],
    discount: float | Float[Tensor, "*batch"],
    chosen_by: Float[Tensor, "*batch actions"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Worth of an action as it turned out: ``r + γ max_a Q(s', a)``, or ``r`` where the episode terminated.

    A truncated episode was going on: its last step bootstraps like any other. No gradient flows.

    Args:
        reward: ``r``, or the discounted sum over ``n`` steps.
        terminated: of the last of these steps.
        next_values: ``Q(s', ·)`` of the state after the last of these steps; ignored where ``terminated``.
        discount: ``γ``, or ``γⁿ`` for ``n`` steps.
        chosen_by: values whose best action is looked up in ``next_values``, as in van Hasselt, Guez & Silver, "Deep
            reinforcement learning with double Q-learning", 2016; None for ``next_values`` themselves.

    Example:
        >>> next_values = torch.tensor([[1.0, 5.0], [1.0, 5.0]])
        >>> q_target(torch.tensor([1.0, 1.0]), torch.tensor([False, True]), next_values, discount=0.5)
        tensor([3.5000, 1.0000])
    """
    if chosen_by is None:
        following = next_values.amax(-1)
    else:
        following = next_values.gather(-1, chosen_by.argmax(-1, keepdim=True)).squeeze(-1)
    return (reward + torch.where(terminated, 0, discount * following)).detach()


def bellman_loss(
    values: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"], kind: str = "squared"
) -> Float[Tensor, "*batch"]:
    """Half the squared Bellman error of each element; the target stands still.

    ``½ (y - Q(s, a))²``, whose gradient is minus the Bellman error. The Huber loss clips this gradient to ±1, which
    is what clips the error in Mnih et al., "Human-level control through deep reinforcement learning", 2015.

    Raises:
        ValueError: ``kind`` is neither ``squared`` nor ``huber``.

    Example:
        >>> bellman_loss(torch.zeros(2), torch.tensor([0.5, 3.0]))
        tensor([0.1250, 4.5000])
        >>> bellman_loss(torch.zeros(2), torch.tensor([0.5, 3.0]), "huber")
        tensor([0.1250, 2.5000])
    """
    if kind == "squared":
        return F.mse_loss(values, target.detach(), reduction="none") / 2
    if kind == "huber":
        return F.huber_loss(values, target.detach(), reduction="none")
    raise ValueError(f"there is no loss {kind!r}; choose one of {', '.join(LOSSES)}")


def visit_weights(entry: Int[Tensor, " batch"], step_size: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Weights of a table's losses with which one gradient step does what the textbook's updates would do in turn.

    The textbook visits one ``(s, a)`` after the other: ``Q ← Q + α (y - Q)``. In a batch an entry may be visited ``n``
    times; ``n`` updates move it by ``1 - (1 - α)ⁿ`` of the way to the targets. As such visits happen side by side,
    each gets the same share, ``(1 - (1 - α)ⁿ) / n``: the mean over all orders of the updates. A single visit has the
    weight ``α``. A sum with weight ``α`` for every visit would overshoot as soon as ``n α > 2``.

    Args:
        entry: which entry of the table each element visits.
        step_size: ``α`` of each element, in [0, 1], the same for elements that visit the same entry.

    Example:
        >>> visit_weights(torch.tensor([7, 3, 3]), torch.tensor([0.5, 0.5, 0.5]))
        tensor([0.5000, 0.3750, 0.3750])
    """
    visits = entry.bincount()[entry]
    return (1 - (1 - step_size) ** visits) / visits
