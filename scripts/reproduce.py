"""Make a table of results: ``python scripts/reproduce.py paper=ram [budget=smoke] [rows=[6,random]] [seeds=[1,2]]``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from zoo.command_line import errors_as_sentences
from zoo.composition import CONFIGS, plain, register
from zoo.config import ReproduceConfig, arguments
from zoo.control.experiment import draw_returns, learning_curve
from zoo.data import find_binarized_mnist, find_mnist
from zoo.inference.program_inference import data_root
from zoo.inference.programs import PROGRAMS
from zoo.papers import PAPERS, Row
from zoo.reproduction import chosen_rows, keep_record, kept_records, run_once, table
from zoo.training import config_hash

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
BUDGETS = {"full": [], "smoke": ["trainer.max_epochs=1"]}


def main() -> None:
    """Run what is missing of the table, then print it and, for the full budget, write it to docs/results.md."""
    with errors_as_sentences():
        asked = arguments(ReproduceConfig, sys.argv[1:])
        if asked.paper not in PAPERS:
            raise ValueError(f"there is no paper {asked.paper!r}; there are: {', '.join(PAPERS)}")
        if asked.budget not in BUDGETS:
            raise ValueError(f"there is no budget {asked.budget!r}; choose one of {', '.join(BUDGETS)}")
        paper, rows = PAPERS[asked.paper], chosen_rows(PAPERS[asked.paper], asked.rows)
        if any(row.data == "mnist" for row in rows):
            find_mnist()  # a paper's figures stand beside figures on the paper's data only
        if any(row.data == "binarized_mnist" for row in rows):
            find_binarized_mnist()
        for row in rows:
            if row.data in PROGRAMS:
                PROGRAMS[row.data].load(data_root())  # or says where the data are looked for
        register()
        records = RESULTS if asked.budget == "full" else Path("runs") / "smoke-results"
        folders: dict[str, list[Path]] = {row.name: [] for row in rows}
        for seed in asked.seeds or paper.seeds:
            for row in rows:
                overrides = [f"experiment={row.experiment}", f"seed={seed}", *BUDGETS[asked.budget]]
                with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                    wanted = config_hash(plain(compose("train", overrides)))
                folder = run_once(overrides, wanted, Path("runs"))
                keep_record(folder, records, f"{row.experiment}-seed{seed}")
                folders[row.name].append(folder)
        text = table(paper, {row.name: kept_records(records, row) for row in paper.rows})
        print(f"\n{paper.title}\n\n{text}")
        for row in rows:
            if paper.curve and row.equally_long:
                print(f"curve: {draw_curve(row, folders[row.name], paper.curve, records)}")
        if asked.budget == "full":
            write_page()
        else:
            print("\nA smoke run: one epoch each, to see that all works. These are no results.")


def draw_curve(row: Row, folders: Sequence[Path], name: str, results: Path) -> Path:
    """Draw how a figure grew in the runs of a row, beside their records."""
    path = results / f"{row.experiment}.png"
    draw_returns({row.label: [learning_curve(folder / "metrics.csv", name) for folder in folders]}, None, name, path)
    return path


def write_page() -> None:
    """Write docs/results.md from the kept records."""
    sections = []
    for name, paper in PAPERS.items():
        records = {row.name: kept_records(RESULTS, row) for row in paper.rows}
        if any(records.values()):
            sections.append(
                f"## {paper.title}\n\n{table(paper, records)}\n\n`python scripts/reproduce.py paper={name}`\n"
            )
    head = (
        "# Results\n\nWritten by `scripts/reproduce.py` from the run records in `docs/results/`; "
        "± is the 95 % interval over seeds.\n"
    )
    (ROOT / "docs" / "results.md").write_text("\n".join([head, *sections]))


if __name__ == "__main__":
    main()
