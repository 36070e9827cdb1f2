from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.utils import parameters_to_vector

from zoo.inference.diagnostics import StoppingRule, Verdict
from zoo.inference.variational import VariationalInference


class StopWhenSettled(pl.Callback):
    """Stop a training once the average of its iterates is known well enough, and leave that average in their place.

    See ``StoppingRule``. It averages what is fitted of guide and model, not the baselines, and looks at the end of each
    epoch, before the ELBO is measured there. The learning rate is to be constant: a falling one settles everywhere.

    Args:
        tolerance: half-width of the intervals, in the units of the parameters, which are logarithms where these have to
            be positive.
        steps_per_epoch: optimiser's steps between two looks.

    Raises:
        ValueError: the tolerance is not positive.
    """

    def __init__(self, tolerance: float, steps_per_epoch: int):
        self.rule = StoppingRule(tolerance, every=steps_per_epoch)

    @property
    def verdict(self) -> Verdict:
        """Of the steps so far."""
        return self.rule.verdict()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further where a resumed training had come to its end."""
        trainer.should_stop |= self.verdict.stop

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        """Take the step's parameters in; if that is enough, put their average in and stop.

        Raises:
            ValueError: a parameter is not finite.
        """
        assert isinstance(pl_module, VariationalInference)
        parameters = pl_module.fitted_parameters()
        if not self.rule.update(parameters_to_vector(parameters)):
            return
        found = self.verdict.average
        assert found is not None
        for parameter, mean in zip(parameters, found.mean.split([x.numel() for x in parameters]), strict=True):
            parameter.copy_(mean.view_as(parameter))
        trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Give all that the rule remembers."""
        return self.rule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the rule was."""
        self.rule.load_state_dict(state_dict)
