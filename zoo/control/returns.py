import torch
from jaxtyping import Bool, Float
from torch import Tensor


def reward_to_go(
    reward: Float[Tensor, " time *batch"],
    discount: float | Float[Tensor, " time *batch"],
    bootstrap: Float[Tensor, "*batch"],
) -> Float[Tensor, " time *batch"]:
    """Return the discounted reward-to-go ``G_t = r_t + γ_t G_{t+1}``, ``G_T = bootstrap``.

    It is the weight of ``∇ log π(a_t | s_t)`` in REINFORCE: Williams, "Simple statistical gradient-following algorithms
    for connectionist reinforcement learning", 1992. A ``discount`` per step is 0 where an episode ends. ``bootstrap``
    is the value after the last step, 0 if the episode terminated there.

    Raises:
        ValueError: ``discount`` lies outside [0, 1].

    Example:
        >>> reward_to_go(torch.ones(3), 0.5, torch.zeros(()))
        tensor([1.7500, 1.5000, 1.0000])
    """
    _check_fraction("discount", discount)
    discounts = torch.as_tensor(discount, dtype=reward.dtype, device=reward.device).expand_as(reward)
    next_return, returns = bootstrap, []
    for reward_t, discount_t in zip(reward.flip(0), discounts.flip(0), strict=True):
        next_return = torch.addcmul(reward_t, discount_t, next_return)
        returns.append(next_return)
    return torch.stack(returns[::-1])


def lambda_returns(
    reward: Float[Tensor, " time *batch"],
    gamma: float,
    next_value: Float[Tensor, " time *batch"],
    done: Bool[Tensor, " time *batch"],
    gae_lambda: float,
) -> Float[Tensor, " time *batch"]:
    """Return the λ-returns ``G_t = r_t + γ ((1 - λ) V(s_{t+1}) + λ G_{t+1})``, the mixture of all n-step returns.

    At the end of an episode or of the rollout, ``G_t = r_t + γ V(s_{t+1})``. ``G_t - V(s_t)`` is the generalized
    advantage of Schulman et al., "High-dimensional continuous control using generalized advantage estimation", 2016.
    With ``λ = 1`` it is biased only by the ``V`` that bootstraps a truncated episode; with ``λ < 1`` it is biased
    wherever ``V`` is wrong, and has less variance.

    Args:
        reward: ``r_t``.
        gamma: discount factor ``γ``.
        next_value: ``V(s_{t+1})``; 0 where the episode terminated.
        done: true where the episode terminated or was truncated.
        gae_lambda: ``λ``.

    Raises:
        ValueError: ``gamma`` or ``gae_lambda`` lies outside [0, 1].

    Example:
        >>> done = torch.tensor([False, True, False])
        >>> lambda_returns(torch.ones(3), 0.5, torch.tensor([4.0, 0.0, 8.0]), done, gae_lambda=1.0)
        tensor([1.5000, 1.0000, 5.0000])
    """
    _check_fraction("gamma", gamma)
    _check_fraction("gae_lambda", gae_lambda)
    lambda_t = torch.full_like(reward, gae_lambda).masked_fill(done, 0)
    return reward_to_go(reward + gamma * (1 - lambda_t) * next_value, gamma * lambda_t, next_value[-1])


def _check_fraction(name: str, value: float | Tensor) -> None:
    if isinstance(value, float | int) and not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
