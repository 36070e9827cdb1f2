import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from zoo.training._files import write_text

Row = dict[str, Any]
_META = ("fx", "name", "prog_bar", "logger", "on_step")  # how a metric was logged


class CSVMetricsLogger(Logger):
    """Logger that writes ``metrics.csv``: one row for each logged step, one column for each metric.

    Checkpoints contain the rows (``CheckpointedMetrics``), and a resumed run rewrites the file from there: a kill
    between writing a checkpoint and the file neither loses nor duplicates a row. Lightning's CSVLogger would
    delete the file of the interrupted run.
    """

    def __init__(self, path: Path, rows: Mapping[int, Row] | None = None):
        super().__init__()
        self.path = path
        self.rows: dict[int, Row] = {step: dict(row) for step, row in (rows or {}).items()}
        if self.rows:
            self._write()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""  # each run has its own folder

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; hyperparameters are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = step or 0
        self.rows.setdefault(step, {"step": step}).update(metrics)
        self._write()

    def rows_with(self, metrics: Mapping[str, float], step: int) -> dict[int, Row]:
        """Return all rows by step, as they will be once these metrics are logged."""
        if not metrics:
            return dict(self.rows)
        return {**self.rows, step: {**self.rows.get(step, {"step": step}), **metrics}}

    def _write(self) -> None:
        columns = dict.fromkeys(key for row in self.rows.values() for key in row)
        text = StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        write_text(self.path, text.getvalue())


class CheckpointedMetrics(pl.Callback):
    """Save all logged metrics in checkpoints: the rows of ``metrics.csv`` and the running means of the current epoch.

    A resumed run therefore logs the same values as an uninterrupted one. At the end of an epoch or step Lightning
    saves the checkpoint *before* it logs the metrics, and it saves no running means. Lightning has no public
    interface for either; the private attributes used here are those that ``LightningModule.log`` and the loops use.
    """

    def __init__(self, metrics_csv: CSVMetricsLogger):
        self.metrics_csv = metrics_csv
        self._restored: list[dict[str, dict[str, Any]]] = []

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the rows, including the metrics that are logged next, and the means of each rank."""
        means = [{} if _at_epoch_end(trainer) else _running_means(trainer)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(means, means[0])
        checkpoint["metrics"] = {"rows": self._rows(trainer), "means": means}

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the means until the end of the first batch: Lightning resets all means when it logs that batch."""
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
    """Whether all batches of the epoch are done, and its metrics are logged next."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return progress.processed > progress.completed


def _running_means(trainer: pl.Trainer) -> dict[str, dict[str, Any]]:
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


def _restore_mean(trainer: pl.Trainer, key: str, mean: dict[str, Any]) -> None:
    """Add a saved mean to the current one, or to zero if the metric was not logged yet."""
    results = trainer.fit_loop.epoch_loop._results
    if key not in results:
        described = {name: mean[name] for name in (*_META, "sync_dist")}
        zero = torch.zeros_like(mean["sum"])
        results.log(value=zero, batch_size=0, sync_dist_fn=trainer.strategy.reduce, **described)
    metric = results[key]
    metric.value = mean["sum"].to(metric.value.device) + metric.value
    metric.cumulated_batch_size = mean["weight"].to(metric.value.device) + metric.cumulated_batch_size


def read_metrics(path: Path, *columns: str) -> list[list[float]]:
    r"""Return columns of a run's ``metrics.csv``, restricted to the rows with a value in the last of these columns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has no such column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "metrics.csv"
        ...     _ = path.write_text("step,loss,error\n3,0.5,\n7,,0.1\n")
        ...     read_metrics(path, "step", "loss")
        [[3.0], [0.5]]
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            names, lines = reader.fieldnames or (), list(reader)
        for number, line in enumerate(lines, start=2):
            if None in line or None in line.values():
                raise ValueError(f"line {number} does not have as many fields as the first")
        if missing := [column for column in columns if column not in names]:
            raise ValueError(f"it has no column {missing[0]}")
        rows = [line for line in lines if line[columns[-1]]]
        return [[float(row[column]) for row in rows] for column in columns]
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged ({error}); resume={path.parent} rewrites it from the run's checkpoint"
        ) from error
