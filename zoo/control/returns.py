import torch
from jaxtyping import Bool, Float
from torch import Tensor


def reward_to_go(
    reward: Float[Tensor, " time *batch"],
    discount: float | Float[Tensor, " time *batch"],
    bootstrap: Float[Tensor, "*batch"],
) -> Float[Tensor, " time *batch"]:
    """Discounted sum of the rewards from each step on: ``G_t = r_t + γ_t G_{t+1}``, ``G_T = bootstrap``.

    The weight of ``∇ log π(a_t | s_t)`` in REINFORCE: Williams, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", 1992.

    Args:
        reward: ``r_t``, in the environment's units.
        discount: ``γ``, between 0 and 1; or one for each step, 0 where the episode ends.
        bootstrap: value of what follows the last step; 0 where the episode terminated there.

    Raises:
        ValueError: ``discount`` lies outside [0, 1].

    Example:
        >>> reward_to_go(torch.ones(3), 0.5, torch.zeros(()))
        tensor([1.7500, 1.5000, 1.0000])
    """
    checked_fraction("discount", discount)
    discounts = torch.as_tensor(discount, dtype=reward.dtype, device=reward.device).expand_as(reward)
    following, returns = bootstrap, []
    for reward_t, discount_t in zip(reward.flip(0), discounts.flip(0), strict=True):
        following = torch.addcmul(reward_t, discount_t, following)
        returns.append(following)
    return torch.stack(returns[::-1])


def lambda_return(
    reward: Float[Tensor, " time *batch"],
    gamma: float,
    following_value: Float[Tensor, " time *batch"],
    ended: Bool[Tensor, " time *batch"],
    gae_lambda: float,
) -> Float[Tensor, " time *batch"]:
    """Mixture of all n-step returns: ``G_t = r_t + γ ((1 - λ) V(s_{t+1}) + λ G_{t+1})``.

    Where the episode ends, and at the end of the rollout, ``G_t = r_t + γ V(s_{t+1})``. ``G_t - V(s_t)`` is the
    generalised advantage of Schulman et al., "High-dimensional continuous control using generalized advantage
    estimation", 2016. ``λ = 1`` is the reward to go, biased only by the ``V`` that stands for what follows a cut;
    ``λ < 1`` is biased wherever ``V`` is wrong, and less noisy.

    Args:
        reward: ``r_t``, in the environment's units.
        gamma: ``γ``, between 0 and 1.
        following_value: ``V(s_{t+1})``; 0 where the episode terminated, as nothing follows.
        ended: the episode terminated or was cut at this step; the next one belongs to another.
        gae_lambda: ``λ``, between 0 and 1.

    Raises:
        ValueError: ``gamma`` or ``gae_lambda`` lies outside [0, 1].

    Example:
        >>> ended = torch.tensor([False, True, False])
        >>> lambda_return(torch.ones(3), 0.5, torch.tensor([4.0, 0.0, 8.0]), ended, gae_lambda=1.0)
        tensor([1.5000, 1.0000, 5.0000])
    """
    checked_fraction("gamma", gamma)
    checked_fraction("gae_lambda", gae_lambda)
    kept = torch.full_like(reward, gae_lambda).masked_fill(ended, 0)
    return reward_to_go(reward + gamma * (1 - kept) * following_value, gamma * kept, following_value[-1])


def checked_fraction(name: str, value: float | Tensor) -> None:
    """Refuse numbers outside [0, 1]."""
    if isinstance(value, float | int) and not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
