import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from zoo.training._files import write_text

Row = dict[str, Any]


class CSVMetricsLogger(Logger):
    """Logger that writes ``metrics.csv``: one row for each logged step, one column for each metric.

    Checkpoints contain the rows (``CheckpointedMetrics``), and a resumed run rewrites the file from there: a kill
    between writing a checkpoint and the file neither loses nor duplicates a row. Lightning's CSVLogger deletes the
    file.
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


def read_metrics(path: Path, *columns: str) -> list[list[float]]:
    r"""Return columns of a run's ``metrics.csv``, restricted to the rows with a value in the last of them.

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
                raise ValueError(f"line {number} has not as many fields as the first")
        if missing := [column for column in columns if column not in names]:
            raise ValueError(f"it has no column {missing[0]}")
        rows = [line for line in lines if line[columns[-1]]]
        return [[float(row[column]) for row in rows] for column in columns]
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged ({error}); resume={path.parent} rewrites it from the run's checkpoint"
        ) from error
