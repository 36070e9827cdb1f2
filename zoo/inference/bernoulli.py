import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class BernoulliLogProb(torch.autograd.Function):
    """``log σ(±logit)`` summed over the units, from one sigmoid that the backward pass uses again.

    ``log1p``, ``softplus`` and what is made of them are many times slower than the sigmoid on a processor, and would
    take longer than the matrix product that makes the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, units: Tensor) -> Tensor:
        """Sum the log-probabilities over the last dimension, with few new tensors: their memory is slow."""
        probability = logits.sigmoid()
        # log(1 + exp(-|logit|)) = -log max(σ, 1 - σ), whose argument lies in [1/2, 1] and loses no digits. A product of
        # 64 of them loses none either, and spares 63 logarithms.
        likelier = 1 - probability
        torch.maximum(likelier, probability, out=likelier)
        logarithm = likelier.unflatten(-1, (math.gcd(likelier.shape[-1], 64), -1)).prod(-2).log_().sum(-1)
        white = torch.gt(logits, 0, out=torch.empty_like(probability))
        units, _ = torch.broadcast_tensors(units, logits)
        whole = logits.shape == units.shape
        surplus = torch.sub(units, white, out=white if whole else None).mul_(logits)
        ctx.save_for_backward(torch.sub(units, probability, out=probability if whole else None))
        ctx.shape = logits.shape
        return surplus.sum(-1) + logarithm

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Give ``units - σ``; the units are samples or data, which no gradient reaches."""
        (error,) = ctx.saved_tensors
        return (error * gradient.unsqueeze(-1)).sum_to_size(ctx.shape), None


def bernoulli_log_prob(logits: Float[Tensor, "... units"], units: Shaped[Tensor, "... units"]) -> Float[Tensor, "..."]:
    """Log-probability of independent binary units, in nats, summed over the last dimension.

    Args:
        logits: of each unit to be 1.
        units: 0 or 1; leading dimensions broadcast. No gradient reaches them.

    Example:
        >>> bernoulli_log_prob(torch.zeros(3, 2), torch.ones(2))
        tensor([-1.3863, -1.3863, -1.3863])
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()  # half precision cannot hold the sum
    return BernoulliLogProb.apply(logits, units)
