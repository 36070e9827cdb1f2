from typing import Any

import pytorch_lightning as pl
import torch

from zoo.training.metrics_csv import CSVMetricsLogger, Row

Mean = dict[str, Any]


class CheckpointedMetrics(pl.Callback):
    """Carry all that was logged through checkpoints: the rows of ``metrics.csv``, and the epoch's running means.

    So both end as they would have without an interruption. Lightning saves a checkpoint *before* it logs the metrics of
    the epoch or step that the checkpoint ends, and keeps of the means of an epoch under way nothing. It has no public
    access to either; what is used of its inside is what ``LightningModule.log`` and its loops use.

    Args:
        metrics_csv: the run's ``metrics.csv``.
    """

    def __init__(self, metrics_csv: CSVMetricsLogger):
        self.metrics_csv = metrics_csv
        self.carried: list[dict[str, Mean]] = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the rows, with the metrics that are to be logged next, and each rank's means."""
        means = [{} if at_epoch_end(trainer) else running_means(trainer)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(means, means[0])
        checkpoint["metrics"] = {"rows": self._rows(trainer), "means": means}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the means until the first batch has been logged: Lightning forgets all when an epoch's first is."""
        self.carried = checkpoint["metrics"]["means"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Go on with the means."""
        if trainer.global_rank < len(self.carried):
            for key, mean in self.carried[trainer.global_rank].items():
                go_on(trainer, key, mean)
        self.carried = []

    def _rows(self, trainer: pl.Trainer) -> dict[int, Row]:
        metrics = {name: value.item() for name, value in trainer._logger_connector.metrics["log"].items()}
        # Lightning counts the step when all of it is over, and again does not for the metrics of an epoch.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - at_epoch_end(trainer)
        return self.metrics_csv.rows_with({**metrics, "epoch": trainer.current_epoch} if metrics else {}, step)


def at_epoch_end(trainer: pl.Trainer) -> bool:
    """Tell whether all batches of the epoch are over, so that its metrics are to be logged next."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return progress.processed > progress.completed


def running_means(trainer: pl.Trainer) -> dict[str, Mean]:
    """Read this rank's running means of the epoch's metrics as plain data."""
    return {
        key: {
            "fx": metric.meta.fx,
            "name": metric.meta.name,
            "prog_bar": metric.meta.prog_bar,
            "logger": metric.meta.logger,
            "on_step": metric.meta.on_step,
            "sync_dist": metric.meta.sync.should,
            "sum": metric.value.cpu(),
            "weight": metric.cumulated_batch_size.cpu(),
        }
        for key, metric in trainer.fit_loop.epoch_loop._results.items()
        if metric.is_tensor and metric.meta.on_epoch and metric.meta.is_mean_reduction and not metric.has_reset
    }


def go_on(trainer: pl.Trainer, key: str, mean: Mean) -> None:
    """Let a figure's mean go on where it was, whether the batch since has logged it or not."""
    results = trainer.fit_loop.epoch_loop._results
    if key not in results:
        described = {name: mean[name] for name in ("fx", "name", "prog_bar", "logger", "on_step", "sync_dist")}
        nothing = torch.zeros_like(mean["sum"])
        results.log(value=nothing, batch_size=0, sync_dist_fn=trainer.strategy.reduce, **described)
    metric = results[key]
    metric.value = mean["sum"].to(metric.value.device) + metric.value
    metric.cumulated_batch_size = mean["weight"].to(metric.value.device) + metric.cumulated_batch_size
