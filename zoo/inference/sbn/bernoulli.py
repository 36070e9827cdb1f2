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
        """Sum the log-probabilities over the last dimension."""
        probability = logits.sigmoid()
        ctx.save_for_backward(probability, units)
        # log(1 + exp(-|logit|)) = -log max(σ, 1 - σ), whose argument lies in [1/2, 1] and loses no digits.
        likelier = torch.maximum(probability, 1 - probability)
        return (logits * units - logits.clamp(min=0)).add_(likelier.log_()).sum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Give ``units - σ``; the units are samples or data, which no gradient reaches."""
        probability, units = ctx.saved_tensors
        return (units - probability).mul_(gradient.unsqueeze(-1)), None


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
    logits, units = torch.broadcast_tensors(logits, units)
    return BernoulliLogProb.apply(logits, units)
