from typing import Any

import pytorch_lightning as pl
import torch

from zoo.training._metrics_csv import CSVMetricsLogger, Row

Mean = dict[str, Any]
_META = ("fx", "name", "prog_bar", "logger", "on_step")  # how a metric was logged


class CheckpointedMetrics(pl.Callback):
    """Save all logged metrics in checkpoints: the rows of ``metrics.csv`` and the running means of the current epoch.

    A resumed run therefore logs the same values as an uninterrupted one. Lightning saves a checkpoint *before* it logs
    the metrics of the epoch or step at whose end it is, and saves no running means. It has no public access to either;
    the private attributes used here are those that ``LightningModule.log`` and the loops use.
    """

    def __init__(self, metrics_csv: CSVMetricsLogger):
        self.metrics_csv = metrics_csv
        self._restored: list[dict[str, Mean]] = []

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the rows, including the metrics that are logged next, and the means of each rank."""
        means = [{} if _at_epoch_end(trainer) else _running_means(trainer)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(means, means[0])
        checkpoint["metrics"] = {"rows": self._rows(trainer), "means": means}

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the means until the first batch was logged, when Lightning resets all of them."""
        self._restored = checkpoint["metrics"]["means"]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_rank < len(self._restored):
            for key, mean in self._restored[trainer.global_rank].items():
                _restore_mean(trainer, key, mean)
        self._restored = []

    def _rows(self, trainer: pl.Trainer) -> dict[int, Row]:
        metrics = {name: value.item() for name, value in trainer._logger_connector.metrics["log"].items()}
        # Lightning counts a step after its metrics were logged; the metrics of an epoch belong to its last step.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - _at_epoch_end(trainer)
        return self.metrics_csv.rows_with({**metrics, "epoch": trainer.current_epoch} if metrics else {}, step)


def _at_epoch_end(trainer: pl.Trainer) -> bool:
    """Whether all batches of the epoch are done, so that its metrics are logged next."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return progress.processed > progress.completed


def _running_means(trainer: pl.Trainer) -> dict[str, Mean]:
    """Return this rank's running means of the epoch as plain data."""
    return {
        key: {
            **{name: getattr(metric.meta, name) for name in _META},
            "sync_dist": metric.meta.sync.should,
            "sum": metric.value.cpu(),
            "weight": metric.cumulated_batch_size.cpu(),
        }
        for key, metric in trainer.fit_loop.epoch_loop._results.items()
        if metric.is_tensor and metric.meta.on_epoch and metric.meta.is_mean_reduction and not metric.has_reset
    }


def _restore_mean(trainer: pl.Trainer, key: str, mean: Mean) -> None:
    """Add a saved mean to the current one, which may not have been logged since."""
    results = trainer.fit_loop.epoch_loop._results
    if key not in results:
        described = {name: mean[name] for name in (*_META, "sync_dist")}
        zero = torch.zeros_like(mean["sum"])
        results.log(value=zero, batch_size=0, sync_dist_fn=trainer.strategy.reduce, **described)
    metric = results[key]
    metric.value = mean["sum"].to(metric.value.device) + metric.value
    metric.cumulated_batch_size = mean["weight"].to(metric.value.device) + metric.cumulated_batch_size
