import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl


class TrainingInterruptedError(Exception):
    """A run that was asked to stop; the message says when, and what is saved."""


class GracefulInterrupt(pl.Callback):
    """On Ctrl-C or a polite kill: finish the step, save, stop. On a second Ctrl-C: stop at once.

    Stopping inside a step would save half an update. After the last step of an epoch the run stops at the beginning of
    the next, since Lightning resumes behind the validation between them.

    Args:
        path: where to save; the run continues from there, bit for bit.
        within_epochs: whether it can continue within an epoch; otherwise the run goes on to the end of this one.

    Raises:
        TrainingInterruptedError: from the trainer's ``fit``, after saving.
    """

    def __init__(self, path: Path, within_epochs: bool = True):
        self.path = path
        self.within_epochs = within_epochs
        self.signal: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, from when there is something to save; Lightning hands the signals back when training has ended."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if asked to."""
        if self.within_epochs and not trainer.is_last_batch and self._asked(trainer):
            trainer.save_checkpoint(self.path)
            raise TrainingInterruptedError(f"stopped after step {trainer.global_step}, and saved")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if asked to during the last step of the epoch before; its end was saved."""
        if self._asked(trainer):
            raise TrainingInterruptedError(f"stopped after step {trainer.global_step}, and saved")

    def _asked(self, trainer: pl.Trainer) -> bool:
        return bool(trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
