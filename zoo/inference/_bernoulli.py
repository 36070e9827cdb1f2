import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import logsigmoid

from zoo.gradients.graphs._provenance.torch_internals import is_transformed


class BernoulliLogProb(torch.autograd.Function):
    """``log σ(±logit)`` summed over the units, computed from one sigmoid that the backward pass reuses.

    On a CPU, ``log1p`` and ``softplus`` are many times slower than the sigmoid, and would take longer than the matrix
    product that computes the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, units: Tensor) -> Tensor:
        """Return the log-probability summed over the last dimension; memory is reused, since allocation is slow."""
        probability = logits.sigmoid()
        # log(1 + exp(-|logit|)) = -log max(σ, 1 - σ), whose argument lies in [1/2, 1] and loses no precision. Neither
        # does a product of 64 of them, which needs one logarithm instead of 64.
        max_probability = 1 - probability
        torch.maximum(max_probability, probability, out=max_probability)
        log_max = max_probability.unflatten(-1, (math.gcd(logits.shape[-1], 64), -1)).prod(-2).log_().sum(-1)
        mode = torch.gt(logits, 0, out=max_probability)  # the likelier value of each unit
        units_expanded, _ = torch.broadcast_tensors(units, logits)
        same_shape = logits.shape == units_expanded.shape
        log_ratio = torch.sub(units_expanded, mode, out=mode if same_shape else None).mul_(logits)
        error = torch.sub(units_expanded, probability, out=probability if same_shape else None)
        ctx.save_for_backward(error, logits, units)
        return log_ratio.sum(-1) + log_max

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
