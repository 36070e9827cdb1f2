"""Make a table of results: ``python scripts/reproduce.py paper=ram [budget=smoke] [rows=[6,random]] [seeds=[1,2]]``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.cli.arguments import ReproduceConfig, arguments, asks_for_help, script_help
from zoo.cli.errors import errors_as_sentences
from zoo.reproduction import tables as papers
from zoo.reproduction.tables import BUDGETS, PAPERS, Paper, Row, chosen_rows, settings_of


def main() -> None:
    """Run what is missing of the table, then print it and write it beside the runs, or where results are published."""
    with errors_as_sentences():
        if asks_for_help(sys.argv[1:]):
            print(script_help(ReproduceConfig, str(__doc__)))
            return
        asked = arguments(ReproduceConfig, sys.argv[1:])
        if asked.paper not in PAPERS:
            raise ValueError(f"there is no paper {asked.paper!r}; there are: {', '.join(PAPERS)}")
        if asked.budget not in BUDGETS:
            raise ValueError(f"there is no budget {asked.budget!r}; choose one of {', '.join(BUDGETS)}")
        if asked.publish and asked.budget != "full":
            raise ValueError("a smoke run has no results to publish: leave publish or budget away")
        reproduce(asked, PAPERS[asked.paper], chosen_rows(PAPERS[asked.paper], asked.rows))


def reproduce(asked: ReproduceConfig, paper: Paper, rows: Sequence[Row]) -> None:
    """Run the rows of a table with each seed, print the table and draw the curves."""
    from zoo.cli.composition import composed  # after the checks, for all this takes long
    from zoo.reproduction.report import keep_record, kept_records, run_once, table, write_page
    from zoo.training import config_hash

    smoke = asked.budget == "smoke"
    check_data(rows, digits=not smoke)
    records = papers.PUBLISHED if asked.publish else Path("runs") / ("smoke-results" if smoke else "results")
    seeds = asked.seeds or paper.seeds[: 1 if smoke else None]
    runs = [(row, seed) for seed in seeds for row in rows]
    folders: dict[str, list[Path]] = {row.name: [] for row in rows}
    for number, (row, seed) in enumerate(runs, 1):
        print(f"\nrun {number} of {len(runs)}: {row.label}, seed {seed}", flush=True)
        overrides = [*settings_of(row, asked.budget), f"seed={seed}"]
        folder = run_once(overrides, config_hash(composed(overrides)), Path("runs"))
        keep_record(folder, records, f"{row.experiment}-seed{seed}")
        folders[row.name].append(folder)
    print(f"\n{paper.title}\n\n{table(paper, {row.name: kept_records(records, row, smoke) for row in paper.rows})}")
    for row in rows:
        if paper.curve and row.equally_long:
            print(f"curve: {draw_curve(row, folders[row.name], paper.curve, records)}")
    if smoke:
        print("\nA smoke run: little training on little data, to see that all works. These are no results.")
        return
    page = records.with_suffix(".md") if asked.publish else records / "results.md"
    write_page(page, records)
    print(f"table: {page}")


def check_data(rows: Sequence[Row], digits: bool) -> None:
    """Look for the data of all rows before the first run; a paper's figures stand beside figures on its own data only.

    Args:
        rows: of a table.
        digits: whether those of MNIST are needed, too.

    Raises:
        FileNotFoundError: there are none.
        MnistUnavailable: likewise.
    """
    from zoo.data import find_binarized_mnist, find_mnist
    from zoo.inference.bbvi import data_root
    from zoo.inference.programs import PROGRAMS

    if digits and any(row.data == "mnist" for row in rows):
        find_mnist()
    if digits and any(row.data == "binarized_mnist" for row in rows):
        find_binarized_mnist()
    for row in rows:
        if row.data in PROGRAMS:
            PROGRAMS[row.data].load(data_root())  # or says where the data are looked for


def draw_curve(row: Row, folders: Sequence[Path], name: str, results: Path) -> Path:
    """Draw how a figure grew in the runs of a row, beside their records."""
    from zoo.control.experiment import draw_returns, learning_curve

    path = results / f"{row.experiment}.png"
    draw_returns({row.label: [learning_curve(folder / "metrics.csv", name) for folder in folders]}, None, name, path)
    return path


if __name__ == "__main__":
    main()
