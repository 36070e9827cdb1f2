import torch
from torch import Tensor

from zoo.attention.ram.network import Rollout
from zoo.attention.ram.objective import HybridObjective


def diagnostics(objective: HybridObjective, rollout: Rollout) -> dict[str, Tensor]:
    """Figures that tell whether the gaze learns."""
    advantage, baseline = objective.reinforce.advantage, objective.reinforce.baseline
    reward = objective.reward.expand_as(baseline)
    figures = {"train_error": 1 - objective.reward.mean(), "cross_entropy": objective.cross_entropy}
    if not baseline.numel():
        return figures
    return figures | {
        "policy_loss": objective.policy,
        "baseline_loss": objective.baseline,
        "reward_variance": objective.reward.var(correction=0),
        "advantage_mean": advantage.mean(),
        "advantage_variance": advantage.var(correction=0),
        # Against the reward's own variance; 0 where every reward is the same and there is nothing to explain.
        "baseline_r2": torch.where(
            reward.var(correction=0) > 0,
            1 - (reward - baseline).var(correction=0) / reward.var(correction=0),
            0.0,
        ),
        "clipped_locations": (rollout.locations[1:].abs() > 1).any(-1).float().mean(),
    }
