from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.utils import parameters_to_vector

from zoo.inference.diagnostics import ConvergenceStatus, StoppingRule
from zoo.inference.variational import VariationalInference


class StopOnConvergence(pl.Callback):
    """Stops training when the average of the iterates is precise enough, and replaces the parameters by that average.

    See ``StoppingRule``. The parameters of guide and model are averaged, those of baselines are not. The rule is
    checked at the end of each epoch, before validation. It requires a constant learning rate.

    Args:
        tolerance: half-width of the confidence intervals, in units of the unconstrained parameters.
        steps_per_epoch: optimizer steps between two checks.

    Raises:
        ValueError: the tolerance is not positive.

    Example:
        >>> StopOnConvergence(tolerance=0.05, steps_per_epoch=100).status.stop
        False
    """

    def __init__(self, tolerance: float, steps_per_epoch: int):
        self.rule = StoppingRule(tolerance, check_interval=steps_per_epoch)

    @property
    def status(self) -> ConvergenceStatus:
        """Status of the rule after the steps so far."""
        return self.rule.status()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if a resumed run had already converged."""
        trainer.should_stop |= self.status.stop

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        """Add the parameters to the rule; if it stops, replace them by their average."""
        assert isinstance(pl_module, VariationalInference)
        parameters = pl_module.fitted_parameters()
        if not self.rule.update(parameters_to_vector(parameters)):
            return
        found = self.status.average
        assert found is not None
        for parameter, mean in zip(parameters, found.mean.split([x.numel() for x in parameters]), strict=True):
            parameter.copy_(mean.view_as(parameter))
        trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the rule."""
        return self.rule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the rule."""
        self.rule.load_state_dict(state_dict)
