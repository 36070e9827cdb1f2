import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.reproduction._tables import PAPERS, MetricColumn, Paper, Row
from zoo.training import read_status

Record = dict[str, Any]


def find_run(runs: Path, config_hash: str) -> tuple[Path, Record] | None:
    """Return folder and record of a run of a configuration, preferably a finished one, else one that can be resumed."""
    found = [(path.parent, read_status(path)) for path in sorted(runs.glob("*/*/status.json"))]
    same = [(folder, status) for folder, status in found if status["config_hash"] == config_hash]
    finished = [(folder, status) for folder, status in same if status["state"] == "finished"]
    resumable = [(folder, status) for folder, status in same if (folder / "checkpoints" / "last.ckpt").exists()]
    return next(iter(finished or resumable), None)


def copy_record(folder: Path, results: Path, name: str) -> None:
    """Copy the record of a run to the folder of results."""
    results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "status.json", results / f"{name}.json")


def load_records(results: Path, row: Row, on_any_data: bool = False) -> list[Record]:
    """Return the records of a row, one for each seed."""
    records = []
    for path in sorted(results.glob(f"{row.experiment}-seed*.json")):
        records.append(read_status(path))
        if (data := records[-1].get("data")) != row.data and not on_any_data:
            raise ValueError(f"{path} is the record of a run on {data}, not on the table's {row.data}; remove it")
    if len({record.get("recipe_hash") for record in records}) > 1:
        raise ValueError(
            f"the records {results}/{row.experiment}-seed*.json are of different configurations, and cannot be "
            "averaged; run the other seeds again, or remove their records"
        )
    return records


def table(paper: Paper, records: Mapping[str, Sequence[Record]]) -> str:
    """Return a Markdown table of published values, the best public reproduction and our results."""
    shown = [row for row in paper.rows if records.get(row.name)]
    best = ["best public"] if any(row.best_public_reproduction for row in paper.rows) else []
    head = ["", *paper.columns, *best, *(column.label for column in paper.metrics), "seeds", "minutes per seed"]
    lines = [head, ["---"] * len(head)]
    for row in shown:
        runs = records[row.name]
        published = [row.published.get(column, "") for column in paper.columns]
        ours = [_cell(column, runs) if column.metric not in row.omitted_metrics else "" for column in paper.metrics]
        minutes = statistics.mean(run["wall_seconds"] for run in runs) / 60
        duration = f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.2g}"
        lines.append(
            [row.label, *published, *([row.best_public_reproduction] if best else []), *ours, str(len(runs)), duration]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(page: Path, results: Path) -> None:
    """Write a Markdown page with the tables of all papers that have records."""
    sections = []
    for name, paper in PAPERS.items():
        records = {row.name: load_records(results, row) for row in paper.rows}
        if any(records.values()):
            sections.append(
                f"## {paper.title}\n\n{table(paper, records)}\n\n`python scripts/reproduce.py paper={name}`\n"
            )
    place = f"{results.parent.name}/{results.name}"
    head = (
        f"# Results\n\nWritten by `scripts/reproduce.py` from the run records in `{place}/`; "
        "± is the 95 % interval over seeds.\n"
    )
    page.write_text("\n".join([head, *sections]))


def _cell(column: MetricColumn, runs: Sequence[Record]) -> str:
    return column.summary([run["metrics"].get(column.metric, math.inf) for run in runs])
