from typing import Any

import torch
from torch import Tensor

from zoo.inference._func_transforms import is_transformed


def first_order(loss: Tensor) -> Tensor:
    """Return a copy of a loss, of which a second derivative is refused.

    The surrogate of the score function, ``log q(z) · (f - b)`` with ``f`` detached, has the right gradient, but its
    second derivative lacks every term in which ``f`` or the distribution of ``z`` is differentiated.
    """
    copied: Tensor = (_TransformedFirstOrder if is_transformed() else _FirstOrder).apply(loss)
    return copied


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)  # which a second derivative would go through
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return gradient
        (loss,) = ctx.saved_tensors
        refused: Tensor = _RefuseSecondDerivative.apply(gradient, loss)
        return refused


class _TransformedFirstOrder(torch.autograd.Function):
    """The same in the form that transforms ask for, whose call takes some fifteen times as long."""

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


class _RefuseSecondDerivative(torch.autograd.Function):
    """First argument unchanged, for a graph in which it depends on the second, and raises if that is differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, loss: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        _refuse()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        _refuse()


def _refuse() -> None:
    raise ValueError(
        "the ELBO has no second derivative where sites of the guide are differentiated by the score function: its loss "
        "is a surrogate whose second derivative lacks terms; use distributions with rsample, or "
        "zoo.gradients.trace(program).surrogate(order=2)"
    )
