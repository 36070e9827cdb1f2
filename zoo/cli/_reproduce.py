"""The command ``zoo reproduce``: runs a table's missing experiments, then writes the table."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.cli._arguments import ReproduceConfig
from zoo.cli._composition import compose_config
from zoo.cli._errors import INTERRUPTED, RunFailedError
from zoo.cli._invocation import command_name, subprocess_command
from zoo.control._experiment import draw_returns, learning_curve
from zoo.data import find_binarized_mnist, find_flickr8k, find_mnist
from zoo.inference.programs import PROGRAMS
from zoo.inference.programs._program import data_root
from zoo.reproduction import _tables as tables
from zoo.reproduction._report import copy_record, find_run, load_records, table, write_page
from zoo.reproduction._tables import Paper, Row, check_request, chosen_rows, settings_of
from zoo.training import config_hash


def reproduce(options: ReproduceConfig) -> None:
    """Run the rows of a paper's table with each seed, print and write the table, and draw the curves."""
    paper, rows = check_request(options.paper, options.budget, options.rows, options.publish)
    smoke = options.budget == "smoke"
    check_data(rows, images=not smoke)
    records = tables.CHECKOUT_RECORDS if options.publish else Path("runs") / ("smoke-results" if smoke else "results")
    seeds = options.seeds or paper.seeds[: 1 if smoke else None]
    runs = [(row, seed) for seed in seeds for row in rows]
    folders: dict[str, list[Path]] = {row.name: [] for row in rows}
    for number, (row, seed) in enumerate(runs, 1):
        print(f"\nrun {number} of {len(runs)}: {row.label}, seed {seed}", flush=True)
        folder = run_row(paper, row, options.budget, seed)
        copy_record(folder, records, f"{row.experiment}-seed{seed}")
        folders[row.name].append(folder)
    print(f"\n{paper.title}\n\n{table(paper, {row.name: load_records(records, row, smoke) for row in paper.rows})}")
    for row in rows:
        if paper.curve and row.equal_length:
            path = records / f"{row.experiment}.png"
            curves = [learning_curve(folder / "metrics.csv", paper.curve) for folder in folders[row.name]]
            draw_returns({row.label: curves}, None, paper.curve, path)
            print(f"curve: {path}")
    if smoke:
        print("\nA smoke run: little training on little data, to see that all works. Its values are not results.")
        return
    page = records.with_suffix(".md") if options.publish else records / "results.md"
    write_page(page, records)
    print(f"table: {page}")


def run_row(paper: Paper, row: Row, budget: str, seed: int) -> Path:
    """Run a row with a seed unless that was done, first the row that it starts from, and return the folder."""
    overrides = [*settings_of(row, budget), f"seed={seed}"]
    if row.starts_from:
        (before,) = chosen_rows(paper, [row.starts_from])
        overrides.append(f"init_from={run_row(paper, before, budget, seed) / 'checkpoints' / 'best.ckpt'}")
    return run_once(overrides, config_hash(compose_config(overrides)), Path("runs"))


def check_data(rows: Sequence[Row], images: bool) -> None:
    """Check before the first run that the data of all rows can be loaded; results on other data are not comparable."""
    if images and any(row.data == "mnist" for row in rows):
        find_mnist()
    if images and any(row.data == "binarized_mnist" for row in rows):
        find_binarized_mnist()
    if images and any(row.data == "flickr8k" for row in rows):
        find_flickr8k()
    for row in rows:
        if row.data in PROGRAMS:
            PROGRAMS[row.data].load(data_root())


def run_once(overrides: list[str], config_hash: str, runs: Path) -> Path:
    """Run a configuration unless a finished run exists, resume it if it was stopped, and return its folder."""
    found = find_run(runs, config_hash)
    if found and found[1]["state"] == "finished":
        return found[0]
    arguments = [f"resume={found[0]}"] if found else overrides
    print(f"\n$ {command_name('train')} {' '.join(arguments)}", flush=True)
    code = train_in_subprocess(arguments)
    if code == INTERRUPTED:
        print("\nThe run above was interrupted; the same command resumes it.", file=sys.stderr)
        sys.exit(code)
    if code != 0:
        raise RunFailedError("the run above did not finish; the same command resumes it")
    done = find_run(runs, config_hash)
    if done is None or done[1]["state"] != "finished":
        raise RunFailedError(f"the run left no finished record of configuration {config_hash} in {runs}")
    return done[0]


def train_in_subprocess(arguments: list[str]) -> int:
    """Run ``zoo train`` in a new process, and return its exit code, or that of an interrupted command on Ctrl-C."""
    with subprocess.Popen([*subprocess_command("train"), *arguments]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the run received it too, and saves before it ends
            process.wait()
            return INTERRUPTED
