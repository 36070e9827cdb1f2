from typing import Any

import torch
from torch import Tensor


def first_order(loss: Tensor) -> Tensor:
    """Return a copy of a loss whose second derivative raises an error.

    The surrogate loss ``log q(z) · (f - b)`` with detached ``f`` has the correct gradient, but its second derivative
    lacks every term in which ``f`` or the distribution of ``z`` is differentiated.
    """
    if not loss.requires_grad:
        return loss
    copy = loss.clone()
    copy.register_hook(lambda grad: _RaiseOnSecondDerivative.apply(grad, loss) if torch.is_grad_enabled() else None)
    return copy


class _RaiseOnSecondDerivative(torch.autograd.Function):
    """Returns the first argument; raises an error if it is differentiated with respect to the second."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, loss: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        _raise_second_order()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        _raise_second_order()


def _raise_second_order() -> None:
    raise ValueError(
        "the ELBO has no second derivative where sites of the guide are differentiated by the score function: its loss "
        "is a surrogate whose second derivative lacks terms; use distributions with rsample, or "
        "zoo.gradients.trace(program).surrogate(order=2)"
    )
