from typing import Any

import torch
from torch import Tensor

from zoo.inference._func_transforms import is_transformed


def first_order(loss: Tensor) -> Tensor:
    """Return a copy of a loss whose second derivative raises an error.

    The surrogate loss ``log q(z) · (f - b)`` with detached ``f`` has the correct gradient, but its second derivative
    lacks every term in which ``f`` or the distribution of ``z`` is differentiated.
    """
    copied: Tensor = (_TransformedFirstOrder if is_transformed() else _FirstOrder).apply(loss)
    return copied


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)  # the second derivative depends on it
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return gradient
        (loss,) = ctx.saved_tensors
        result: Tensor = _RaiseOnSecondDerivative.apply(gradient, loss)
        return result


class _TransformedFirstOrder(torch.autograd.Function):
    """The same for the transforms of ``torch.func``; a call takes 15 times as long."""

    generate_vmap_rule = True
    backward = _FirstOrder.backward

    @staticmethod
    def forward(loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()


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
