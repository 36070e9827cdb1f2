import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from zoo.training import read_status

Record = dict[str, Any]


class Row(NamedTuple):
    """One line of a paper's table."""

    name: str
    """What ``rows=`` calls it."""
    label: str
    experiment: str
    """Of ``configs/experiment``."""
    published: Mapping[str, str]
    """The paper's figures, by the name of the table they stand in."""
    peer: str = ""
    """Best public reproduction."""


class Paper(NamedTuple):
    """A paper's table, and how ours is made."""

    title: str
    data: str
    """What the paper's figures were measured on; figures on other data never stand beside them."""
    metric: str
    """Key in the ``metrics`` of a run record; a fraction, shown in per cent."""
    columns: tuple[str, ...]
    """Names of the published tables."""
    rows: tuple[Row, ...]


def ram_row(glimpses: int, proceedings: str, arxiv: str, peer: str = "") -> Row:
    """Describe RAM with a number of glimpses on 28×28 digits."""
    return Row(
        name=str(glimpses),
        label=f"RAM, {glimpses} glimpses, 8×8, 1 scale",
        experiment=f"ram_mnist_28_{glimpses}",
        published={"proceedings": proceedings, "arXiv v1": arxiv},
        peer=peer,
    )


# Two sets of figures are public: those of the proceedings (NIPS 2014) and the higher ones of arXiv 1406.6247v1.
PAPERS = {
    "ram": Paper(
        title="Mnih, Heess, Graves & Kavukcuoglu, “Recurrent models of visual attention”, 2014: "
        "test error on 28×28 MNIST in per cent",
        data="mnist",
        metric="test_error",
        columns=("proceedings", "arXiv v1"),
        rows=(
            ram_row(2, "3.79", "6.27", "2.34"),
            ram_row(3, "1.51", "2.7"),
            ram_row(4, "1.54", "1.73", "1.07"),
            ram_row(5, "1.34", "1.55"),
            ram_row(6, "1.12", "1.29", "0.67"),
            ram_row(7, "1.07", "1.47", "0.85"),
            Row("spiral", "control: the 6 glimpses that the gaze begins with", "ram_mnist_28_6_spiral", {}),
            Row("random", "control: 6 random glimpses", "ram_mnist_28_6_random", {}),
            Row("centre", "control: 6 glimpses at the centre", "ram_mnist_28_6_centre", {}),
        ),
    )
}


def chosen_rows(paper: Paper, names: Sequence[str] | None) -> list[Row]:
    """Pick rows by name; all for None.

    Raises:
        ValueError: a row is unknown.
    """
    known = {row.name: row for row in paper.rows}
    for name in names or []:
        if name not in known:
            raise ValueError(f"there is no row {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names or known]


def find_run(runs: Path, config_hash: str) -> tuple[Path, Record] | None:
    """Find the run of a configuration: a finished one if there is, else one that can be continued."""
    found = [(path.parent, read_status(path)) for path in sorted(runs.glob("*/*/status.json"))]
    same = [(folder, status) for folder, status in found if status["config_hash"] == config_hash]
    finished = [(folder, status) for folder, status in same if status["state"] == "finished"]
    started = [(folder, status) for folder, status in same if (folder / "checkpoints" / "last.ckpt").exists()]
    return next(iter(finished or started), None)


def run_once(overrides: list[str], config_hash: str, runs: Path) -> Path:
    """Run a configuration unless it is done, continue it if it was stopped, and give its folder.

    Raises:
        ChildProcessError: the run failed; it has said why.
    """
    found = find_run(runs, config_hash)
    if found and found[1]["state"] == "finished":
        return found[0]
    arguments = [f"resume={found[0]}"] if found else overrides
    print(f"\n$ python scripts/train.py {' '.join(arguments)}", flush=True)
    if run_train_script(arguments) != 0:
        raise ChildProcessError("the run above did not finish; the same command goes on from where it stopped")
    done = find_run(runs, config_hash)
    if done is None or done[1]["state"] != "finished":
        raise ChildProcessError(f"the run left no finished record of configuration {config_hash} in {runs}")
    return done[0]


def run_train_script(arguments: list[str]) -> int:
    """Run ``scripts/train.py`` in a process of its own, and give its exit code."""
    script = str(Path(__file__).parents[1] / "scripts" / "train.py")
    with subprocess.Popen([sys.executable, script, *arguments]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it reached the run too, which saves before it ends
            return process.wait()


def keep_record(folder: Path, results: Path, name: str) -> None:
    """Copy a run's record to where results are kept."""
    results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "status.json", results / f"{name}.json")


def kept_records(results: Path, paper: Paper, row: Row) -> list[Record]:
    """Read the kept records of a row, one a seed.

    Raises:
        ValueError: a record is damaged or of a run on other data than the paper's, or they differ in more than the
            seed.
    """
    records = []
    for path in sorted(results.glob(f"{row.experiment}-seed*.json")):
        records.append(read_status(path))
        if (data := records[-1].get("data")) != paper.data:
            raise ValueError(f"{path} is the record of a run on {data}, not on the paper's {paper.data}; remove it")
    if len({record.get("recipe_hash") for record in records}) > 1:
        raise ValueError(
            f"the records {results}/{row.experiment}-seed*.json are of different recipes, and have no mean; "
            "run the other seeds again, or remove their records"
        )
    return records


def table(paper: Paper, records: Mapping[str, Sequence[Record]]) -> str:
    """Write a paper's figures, the best public reproduction's and ours as a Markdown table.

    Args:
        paper: whose table.
        records: run records by the row's name; rows without any are left out.
    """
    head = ["", *paper.columns, "best public", "ours", "seeds", "minutes a seed"]
    lines = [head, ["---"] * len(head)]
    for row in paper.rows:
        if runs := records.get(row.name):
            published = [row.published.get(column, "") for column in paper.columns]
            minutes = statistics.mean(run["wall_seconds"] for run in runs) / 60
            ours = mean_and_interval([100 * run["metrics"][paper.metric] for run in runs])
            lines.append([row.label, *published, row.peer, ours, str(len(runs)), f"{minutes:.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_and_interval(values: Sequence[float]) -> str:
    """Mean over seeds with its 95 % interval (Student's t); a single seed has none.

    Example:
        >>> mean_and_interval([0.7, 0.8, 0.9]), mean_and_interval([0.7])
        ('0.80 ± 0.25', '0.70')
    """
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} ± {half:.2f}"
