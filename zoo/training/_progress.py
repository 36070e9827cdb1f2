from collections.abc import Callable

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn


class TrainingProgress(pl.Callback):
    """Progress bar for the whole run with the remaining time, and a line with the metrics of each epoch.

    Shows the metrics that the module logs with ``prog_bar=True``; metrics whose name ends in ``error`` are shown in
    percent. If the output is not a terminal, only the lines are printed. Batches are counted without ``fraction_done``.
    """

    def __init__(self, fraction_done: Callable[[], float] | None = None):
        self.fraction_done = fraction_done
        self.console = Console(soft_wrap=True)
        self.progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            columns = (TimeElapsedColumn(), *Progress.get_default_columns(), TextColumn("left"))
            self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
            self.progress.add_task("training", total=1.0)
            self._update(trainer)
            self.progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        self._update(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.progress is not None:
            metrics = {**trainer.progress_bar_metrics}
            shown = "  ".join(f"{name.replace('_', ' ')} {format_metric(name, x)}" for name, x in metrics.items())
            width = len(str(trainer.max_epochs))
            of_all = f"/{trainer.max_epochs}" if self.fraction_done is None else ""
            self.console.print(f"epoch {trainer.current_epoch + 1:>{width}}{of_all}  {shown}")

    def on_train_end(self, *args: object) -> None:
        self._stop()

    def on_exception(self, *args: object) -> None:
        self._stop()  # restores the cursor of the terminal

    def _update(self, trainer: pl.Trainer) -> None:
        if self.progress is not None:
            if self.fraction_done is not None:
                done = self.fraction_done()
            else:  # not global_step: a module may step its optimizers several times in a training step
                done = (trainer.fit_loop.total_batch_idx + 1) / float(trainer.estimated_stepping_batches)
            self.progress.update(TaskID(0), completed=done)

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()


def format_metric(name: str, value: float) -> str:
    """Return a metric as text: errors in percent, thousands such as environment steps without an exponent."""
    if name.endswith("error"):
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.4g}"
