import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress(pl.Callback):
    """One bar for the whole run, with the time left, and a line for each epoch's metrics.

    Shows what the module logs with ``prog_bar=True``; metrics whose name ends in ``error`` are shown in per cent. Where
    the output is not a terminal only the lines are written.

    Args:
        done: gives the fraction of the training that is done; unless given, the batches tell.
    """

    def __init__(self, done: Callable[[], float] | None = None):
        self.done = done
        self.steps = math.inf
        self.console = Console(soft_wrap=True)
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, from where the run starts or continues."""
        if not trainer.is_global_zero:
            return
        self.steps = float(trainer.estimated_stepping_batches)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("·"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=1.0)
        self.progress.update(self.task, completed=self._done(trainer))
        self.progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self._done(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's metrics."""
        if self.progress is not None:
            metrics = {**trainer.progress_bar_metrics}
            shown = "  ".join(f"{name.replace('_', ' ')} {readable(name, x)}" for name, x in metrics.items())
            width = len(str(trainer.max_epochs))
            of_all = f"/{trainer.max_epochs}" if self.done is None else ""
            self.progress.console.print(f"epoch {trainer.current_epoch + 1:>{width}}{of_all}  {shown}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away, and give the terminal its cursor back."""
        self._stop()

    def _done(self, trainer: pl.Trainer) -> float:
        if self.done is not None:
            return self.done()
        # Not global_step: in one training step a module may step its optimisers several times.
        return (trainer.fit_loop.total_batch_idx + 1) / self.steps

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def readable(name: str, value: float) -> str:
    """Format a figure for people.

    Example:
        >>> readable("validation_error", 0.0123), readable("loss", 0.5)
        ('1.23 %', '0.5')
    """
    return f"{100 * value:.2f} %" if name.endswith("error") else f"{value:.4g}"
