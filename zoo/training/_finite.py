from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite.

    Example:
        >>> print(NonFiniteError("the loss is not finite at step 3: policy (nan)"))
        the loss is not finite at step 3: policy (nan)
    """


def sum_losses(terms: Mapping[str, Tensor], step: int) -> Tensor:
    """Return the sum of a loss's terms.

    Args:
        terms: scalars by name.
        step: training step, for the message.

    Raises:
        NonFiniteError: a term is NaN or infinite.

    Example:
        >>> sum_losses({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, step=0)
        tensor(3.)
    """
    total = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(total):
        culprits = [f"{name} ({term.item()})" for name, term in terms.items() if not torch.isfinite(term)]
        raise NonFiniteError(
            f"the loss is not finite at step {step}: {', '.join(culprits) or 'the sum of its terms overflows'}; "
            "nothing was changed by this step"
        )
    return total


class FiniteGradients(pl.Callback):
    """Raises before an optimizer step with a gradient that is not finite."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        if gradients and not torch.isfinite(torch.nn.utils.get_total_norm(list(gradients.values()))):
            culprits = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
            raise NonFiniteError(
                f"the gradient is not finite at step {trainer.global_step}, in {', '.join(culprits) or 'its norm'}; "
                "nothing was changed by this step"
            )
