import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import logsigmoid

from zoo.inference._func_transforms import is_transformed


class BernoulliLogProb(torch.autograd.Function):
    """``log σ(±logit)`` summed over the units, computed from one sigmoid that the backward pass reuses.

    On a CPU, ``log1p`` and ``softplus`` are many times slower than the sigmoid, and would take longer than the matrix
    product that computes the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, units: Tensor) -> Tensor:
        """Return the log-probability summed over the last dimension; few tensors are allocated, which is slow."""
        probability = logits.sigmoid()
        # log(1 + exp(-|logit|)) = -log max(σ, 1 - σ), whose argument lies in [1/2, 1] and loses no precision. Neither
        # does a product of 64 of them, which saves 63 logarithms.
        likelier = 1 - probability
        torch.maximum(likelier, probability, out=likelier)
        logarithm = likelier.unflatten(-1, (math.gcd(likelier.shape[-1], 64), -1)).prod(-2).log_().sum(-1)
        white = torch.gt(logits, 0, out=likelier)  # reuses its memory
        broadcast, _ = torch.broadcast_tensors(units, logits)
        whole = logits.shape == broadcast.shape
        surplus = torch.sub(broadcast, white, out=white if whole else None).mul_(logits)
        error = torch.sub(broadcast, probability, out=probability if whole else None)
        ctx.save_for_backward(error, logits, units)
        return surplus.sum(-1) + logarithm

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return ``units - σ``; the units are samples or data, without gradient."""
        error, logits, units = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            error = units - logits.sigmoid()
        return (error * gradient.unsqueeze(-1)).sum_to_size(logits.shape), None


def bernoulli_log_prob(logits: Float[Tensor, "... units"], units: Shaped[Tensor, "... units"]) -> Float[Tensor, "..."]:
    """Return the log-probability of independent binary units in nats, summed over the last dimension.

    Differentiable with respect to the logits any number of times, also by the transforms of ``torch.func``.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()  # half precision cannot hold the sum
    if is_transformed():
        units = units.detach()
        return (logsigmoid(logits) * units + logsigmoid(-logits) * (1 - units)).sum(-1)
    return BernoulliLogProb.apply(logits, units)
