import copy
import inspect
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.compile import to_uncompiled
from torch import Tensor

from zoo.gradients import gradient_moments
from zoo.training.resume import random_state, set_random_state


class GradientVarianceMonitor(pl.Callback):
    """Log how noisy the gradient is that training follows, without changing the training.

    Now and then the coming step's gradient is computed several times over, on the same batch with the same weights, so
    that only what the training step itself draws differs. Logged are, over all parameters together,
    ``gradient_variance``, ``Σ Var[g_i]``, and ``gradient_signal_to_noise``, ``‖E[g]‖ / sqrt(Σ Var[g_i])``; see
    ``gradient_moments``. Both are of the loss that the training step returns, before gradients are accumulated,
    clipped or averaged over ranks; what the ranks measure is averaged.

    Each of these gradients is computed on a copy of the module that shares its parameters alone, whose ``log`` does
    nothing; the states of the random number generators are put back. What a training step does to the trainer or to its
    loggers directly would be seen.

    Args:
        every_n_steps: how many optimiser steps lie between two measurements; the first is before the first step.
        draws: gradients a measurement, each as costly as a step.

    Raises:
        ValueError: the numbers make no sense, or, when training starts, the module steps its optimisers by itself.

    Example:
        >>> trainer = pl.Trainer(callbacks=[GradientVarianceMonitor(every_n_steps=100)], logger=False)
    """

    def __init__(self, every_n_steps: int, draws: int = 10):
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        if draws < 2:
            raise ValueError(f"a variance needs at least 2 draws, got {draws}")
        self.every_n_steps = every_n_steps
        self.draws = draws

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what cannot be measured without being changed."""
        if not pl_module.automatic_optimization:
            raise ValueError(
                f"the gradient of {type(pl_module).__name__} cannot be monitored: it steps its optimisers by itself, "
                "and would step them while it is measured"
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure, if it is time."""
        if trainer.global_step % self.every_n_steps or batch_idx % trainer.accumulate_grad_batches:
            return
        parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        state = random_state()
        try:
            with trainer.precision_plugin.train_step_context():
                total = gradient_moments(
                    lambda: training_loss_of_copy(pl_module, batch, batch_idx), parameters, self.draws
                ).total
        finally:
            set_random_state(state)
        metrics = {"gradient_variance": total.variance, "gradient_signal_to_noise": total.signal_to_noise}
        averaged = {name: trainer.strategy.reduce(x, reduce_op="mean").item() for name, x in metrics.items()}
        for logger in trainer.loggers:  # the module's own log would repeat them at each step until the next ones
            logger.log_metrics(averaged, step=trainer.global_step)


def training_loss_of_copy(module: pl.LightningModule, batch: Any, batch_idx: int) -> Tensor:
    """Make a training step with a copy of the module, and of the batch, that shares the trained parameters alone."""
    shared = {id(x): x for x in (*module.parameters(), module.trainer) if not isinstance(x, Tensor) or x.requires_grad}
    try:
        copied, batch = copy.deepcopy((module, batch), shared)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"the gradient of {type(module).__name__} cannot be monitored, as something in it or its batch cannot be "
            f"copied: {error}"
        ) from error
    if copied._compiler_ctx is not None:
        copied = to_uncompiled(copied)  # what is compiled would work on the module itself
    copied.trainer = module.trainer  # which copies leave behind
    copied.log = ignore  # type: ignore[method-assign]
    arguments = (batch, batch_idx)[: len(inspect.signature(copied.training_step).parameters)]
    output = copied.training_step(*arguments)
    loss = output["loss"] if isinstance(output, dict) else output
    if not isinstance(loss, Tensor):
        raise ValueError(f"the training step of {type(module).__name__} gave no loss whose gradient could be monitored")
    return loss


def ignore(*args: Any, **kwargs: Any) -> None:
    """Log nothing."""
