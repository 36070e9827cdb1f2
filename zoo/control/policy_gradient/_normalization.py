import torch
from jaxtyping import Bool, Float
from torch import Tensor


def normalize(
    advantage: Float[Tensor, "time envs"], mask: Bool[Tensor, "time envs"], center: bool = True
) -> Float[Tensor, "time envs"]:
    """Return advantages divided by their root mean square, 0 where the mask is false."""
    # The mean is subtracted only if a value is learned: it is a baseline, and would replace any constant one.
    count = mask.sum().clamp(min=1)
    advantage = torch.where(mask, advantage, 0)
    if center:
        advantage = torch.where(mask, advantage - advantage.sum() / count, 0)
    return advantage / (advantage.square().sum() / count).sqrt().clamp(min=1e-3)
