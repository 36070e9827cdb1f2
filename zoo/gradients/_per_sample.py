from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients.running import RunningMoments


def gradient_moments_from_samples(
    weighed: Iterable[tuple[Tensor, Tensor]], parameters: Sequence[Tensor]
) -> RunningMoments:
    """Take in the gradients of weighed losses.

    Raises:
        ValueError: the losses have another shape than the weights, or no gradient.
    """
    moments, reached = RunningMoments(), False
    for weights, losses in weighed:
        check_tensor("the loss", losses)
        if losses.shape != weights.shape or losses.ndim > 1:
            raise ValueError(
                f"losses of shape {tuple(losses.shape)} do not fit weights of shape {tuple(weights.shape)}"
            )
        reached = reached or losses.requires_grad
        possible = weights.detach() > 0  # the gradient of what is impossible need not be a number
        if possible.any():
            gradients = per_sample_gradients(losses[possible].flatten(), parameters)
            moments.update(gradients, weights.detach()[possible].flatten().to(gradients))
    if not reached:
        raise ValueError("no loss has a gradient: it was detached, or computed without the parameters")
    return moments


def per_sample_gradients(losses: Float[Tensor, " group"], parameters: Sequence[Tensor]) -> Float[Tensor, "group size"]:
    """Gradient of each loss, over all parameters; 0 where none reaches one."""
    found: Sequence[Tensor | None] = [None] * len(parameters)
    if losses.requires_grad:
        each = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
        if len(losses) == 1:  # spares those losses that vmap cannot follow
            found = torch.autograd.grad(losses, parameters, each[0], retain_graph=True, allow_unused=True)
        else:
            found = torch.autograd.grad(
                losses, parameters, each, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
    rows = [
        parameter.new_zeros(len(losses), parameter.numel()) if gradient is None else gradient.reshape(len(losses), -1)
        for gradient, parameter in zip(found, parameters, strict=True)
    ]
    gradients = torch.cat([row.to(rows[0].device) for row in rows], dim=1).detach()
    return gradients.to(torch.promote_types(gradients.dtype, torch.float32))  # half precision cannot hold the squares


def check_parameters(parameters: Iterable[Tensor]) -> list[Tensor]:
    """List what is differentiated with respect to, or say what is wrong with it."""
    if isinstance(parameters, Tensor | nn.Module):  # a tensor's rows would be others than those that the loss knows
        raise ValueError(f"the parameters must be a list of tensors, got one {type(parameters).__name__}")
    parameters = list(parameters)
    for parameter in parameters:
        check_tensor("a parameter", parameter)
    if not parameters or not all(parameter.requires_grad for parameter in parameters):
        raise ValueError("there must be parameters to differentiate with respect to, all with requires_grad=True")
    return parameters


def check_tensor(what: str, value: Any) -> None:
    """Raise an error if something is no tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be a tensor, got {type(value).__name__}")
