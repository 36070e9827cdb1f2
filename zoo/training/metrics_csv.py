import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from zoo.training.record import write_text


class MetricsCsv(Logger):
    """``metrics.csv``: one row a step at which something was logged, one column a metric.

    A resumed run appends: rows of steps after its checkpoint are forgotten, as they will come again. (The library's
    own logger deletes the file instead.)

    Args:
        path: the file.
        resumed_step: the step at which the run continues; 0 for a new run.
    """

    def __init__(self, path: Path, resumed_step: int = 0):
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, Any]] = {}
        if path.exists():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < resumed_step]
            self.rows = {int(row["step"]): {k: v for k, v in row.items() if v} for row in rows}

    @property
    def name(self) -> str:
        """What Lightning calls this logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Runs have a folder each; there are no versions in one."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Leave hyperparameters to the run's ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add figures to the row of a step, and write the file, all or nothing."""
        step = step or 0
        self.rows.setdefault(step, {"step": step}).update(metrics)
        columns = dict.fromkeys(key for row in self.rows.values() for key in row)
        text = StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        write_text(self.path, text.getvalue())
