import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.reproduction.tables import PAPERS, MetricColumn, Paper, Row
from zoo.training import read_status

Record = dict[str, Any]


def find_run(runs: Path, config_hash: str) -> tuple[Path, Record] | None:
    """Find the run of a configuration: a finished one if there is, else one that can be continued."""
    found = [(path.parent, read_status(path)) for path in sorted(runs.glob("*/*/status.json"))]
    same = [(folder, status) for folder, status in found if status["config_hash"] == config_hash]
    finished = [(folder, status) for folder, status in same if status["state"] == "finished"]
    started = [(folder, status) for folder, status in same if (folder / "checkpoints" / "last.ckpt").exists()]
    return next(iter(finished or started), None)


def keep_record(folder: Path, results: Path, name: str) -> None:
    """Copy a run's record to where results are kept."""
    results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "status.json", results / f"{name}.json")


def kept_records(results: Path, row: Row, on_any_data: bool = False) -> list[Record]:
    """Read the kept records of a row, one a seed.

    Args:
        results: where records are kept.
        row: of a table.
        on_any_data: whether they may be of runs on other data than the row's, as those of a smoke run.

    Raises:
        ValueError: a record is damaged or of a run on other data than the row's, or they differ in more than the
            seed.
    """
    records = []
    for path in sorted(results.glob(f"{row.experiment}-seed*.json")):
        records.append(read_status(path))
        if (data := records[-1].get("data")) != row.data and not on_any_data:
            raise ValueError(f"{path} is the record of a run on {data}, not on the table's {row.data}; remove it")
    if len({record.get("recipe_hash") for record in records}) > 1:
        raise ValueError(
            f"the records {results}/{row.experiment}-seed*.json are of different recipes, and have no mean; "
            "run the other seeds again, or remove their records"
        )
    return records


def table(paper: Paper, records: Mapping[str, Sequence[Record]]) -> str:
    """Write published figures, the best public reproduction's and ours as a Markdown table.

    Args:
        paper: whose table.
        records: run records by the row's name; rows without any are left out.
    """
    shown = [row for row in paper.rows if records.get(row.name)]
    peers = ["best public"] if any(row.best_reproduction for row in paper.rows) else []
    head = ["", *paper.columns, *peers, *(figure.label for figure in paper.metrics), "seeds", "minutes a seed"]
    lines = [head, ["---"] * len(head)]
    for row in shown:
        runs = records[row.name]
        published = [row.published.get(column, "") for column in paper.columns]
        ours = [entry(figure, runs) if figure.metric not in row.omitted_metrics else "" for figure in paper.metrics]
        minutes = statistics.mean(run["wall_seconds"] for run in runs) / 60
        spent = f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.2g}"
        lines.append([row.label, *published, *([row.best_reproduction] if peers else []), *ours, str(len(runs)), spent])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(page: Path, results: Path) -> None:
    """Write the tables of all papers of which records are kept, as Markdown."""
    sections = []
    for name, paper in PAPERS.items():
        records = {row.name: kept_records(results, row) for row in paper.rows}
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


def entry(figure: MetricColumn, runs: Sequence[Record]) -> str:
    """Write a figure of all seeds."""
    return figure.summary([run["metrics"].get(figure.metric, math.inf) for run in runs])
