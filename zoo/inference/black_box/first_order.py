from typing import Any

import torch
from torch import Tensor


class FirstOrder(torch.autograd.Function):
    """Identity with a first derivative only.

    The surrogate of the score function, ``log q(z) · (f - b)`` with ``f`` detached, has the right gradient, but its
    second derivative lacks every term in which ``f`` or the distribution of ``z`` is differentiated.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(loss: Tensor) -> Tensor:
        """Return a copy."""
        return loss.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep what a second derivative would go through."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient; with create_graph=True one that cannot be differentiated again."""
        if not torch.is_grad_enabled():
            return gradient
        (loss,) = ctx.saved_tensors
        refused: Tensor = _RefuseSecondDerivative.apply(gradient, loss)
        return refused

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        """Return the tangent."""
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
