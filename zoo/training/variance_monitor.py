import copy
import inspect
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.compile import to_uncompiled
from torch import Tensor

from zoo.gradients import gradient_moments
from zoo.training._resume import random_state, set_random_state


class GradientVarianceMonitor(pl.Callback):
    """Logs the variance of the gradient estimate, without changing the training.

    Every ``every_n_steps`` steps the gradient of the next step is sampled several times, with the same batch and
    weights, so that only the random samples of the training step differ. It logs, over all parameters,
    ``gradient_variance``, ``Σ Var[g_i]``, and ``gradient_signal_to_noise``, ``‖E[g]‖ / sqrt(Σ Var[g_i])``; see
    ``gradient_moments``. Both refer to the loss that the training step returns, before accumulation, clipping and
    averaging over ranks; the values are averaged over ranks.

    Each gradient is computed on a copy of the module that shares only its parameters and whose ``log`` does nothing;
    the random number generators are restored. Direct effects of a training step on the trainer or its loggers remain.

    Args:
        every_n_steps: optimizer steps between measurements; the first is before the first step.
        num_samples: gradients in a measurement, each as expensive as a step.

    Raises:
        ValueError: a number is too small, or, when training starts, the module uses manual optimization.

    Example:
        >>> trainer = pl.Trainer(callbacks=[GradientVarianceMonitor(every_n_steps=100)], logger=False)
    """

    def __init__(self, every_n_steps: int, num_samples: int = 10):
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        if num_samples < 2:
            raise ValueError(f"num_samples must be at least 2 for a variance, got {num_samples}")
        self.every_n_steps = every_n_steps
        self.num_samples = num_samples

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the module uses automatic optimization."""
        if not pl_module.automatic_optimization:
            raise ValueError(
                f"the gradient of {type(pl_module).__name__} cannot be monitored: it uses manual "
                "optimization, and would step its optimizers while it is measured"
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure every ``every_n_steps`` steps."""
        if trainer.global_step % self.every_n_steps or batch_idx % trainer.accumulate_grad_batches:
            return
        parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        state = random_state()
        try:
            with trainer.precision_plugin.train_step_context():
                total = gradient_moments(
                    lambda: _training_loss_of_copy(pl_module, batch, batch_idx), parameters, self.num_samples
                ).total
        finally:
            set_random_state(state)
        metrics = {"gradient_variance": total.variance, "gradient_signal_to_noise": total.signal_to_noise}
        averaged = {name: trainer.strategy.reduce(x, reduce_op="mean").item() for name, x in metrics.items()}
        for logger in trainer.loggers:  # the module's own log would repeat them at each step
            logger.log_metrics(averaged, step=trainer.global_step)


def _training_loss_of_copy(module: pl.LightningModule, batch: Any, batch_idx: int) -> Tensor:
    """Return the loss of a training step of a copy of module and batch that shares only the trained parameters."""
    shared = {id(x): x for x in (*module.parameters(), module.trainer) if not isinstance(x, Tensor) or x.requires_grad}
    try:
        copied, batch = copy.deepcopy((module, batch), shared)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"the gradient of {type(module).__name__} cannot be monitored, as something in it or its batch cannot be "
            f"copied: {error}"
        ) from error
    if copied._compiler_ctx is not None:
        copied = to_uncompiled(copied)  # the compiled code refers to the module itself
    copied.trainer = module.trainer  # not copied
    copied.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    arguments = (batch, batch_idx)[: len(inspect.signature(copied.training_step).parameters)]
    output = copied.training_step(*arguments)
    loss = output["loss"] if isinstance(output, dict) else output
    if not isinstance(loss, Tensor):
        raise ValueError(f"the training step of {type(module).__name__} returns no loss that could be monitored")
    return loss
