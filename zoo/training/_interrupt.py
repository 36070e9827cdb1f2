import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl


class TrainingInterruptedError(Exception):
    """A training was interrupted; the message says at which step, and what was saved.

    Example:
        >>> print(TrainingInterruptedError("stopped after step 6, and saved"))
        stopped after step 6, and saved
    """


class GracefulInterrupt(pl.Callback):
    """Finishes the step on SIGINT or SIGTERM, saves a checkpoint and stops; a second Ctrl-C stops at once.

    Stopping inside a step would save half an update. A training without ``mid_epoch`` stops at the start of the next
    epoch. So does every training that is interrupted in the last step of an epoch: a run that stopped there would
    resume after the validation, and skip it. The trainer's ``fit`` then raises ``TrainingInterruptedError``.
    """

    def __init__(self, path: Path, mid_epoch: bool = True):
        self.path = path
        self.mid_epoch = mid_epoch
        self.signal: int | None = None
        self.announces_stop = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers; Lightning restores the previous ones at the end of the training."""
        self.announces_stop = trainer.is_global_zero and not self.mid_epoch
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle_signal)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.mid_epoch and not trainer.is_last_batch and self._is_interrupted(trainer):
            trainer.save_checkpoint(self.path)
            raise TrainingInterruptedError(f"stopped after step {trainer.global_step}, and saved")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if interrupted during the last step of the previous epoch, whose end was saved."""
        if self._is_interrupted(trainer):
            raise TrainingInterruptedError(f"stopped after step {trainer.global_step}, and saved")

    def _is_interrupted(self, trainer: pl.Trainer) -> bool:
        return bool(trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False))

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if (
            self.announces_stop and self.signal is None
        ):  # an epoch may take minutes; a print is not safe in a signal handler
            os.write(2, b"\nstopping at the end of this epoch, where the run is saved; Ctrl-C again stops at once\n")
        self.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
