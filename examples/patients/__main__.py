"""Predict patients' labs: ``python -m examples.patients part=models|curve [seeds=[1,2]] [minutes=20] [budget=smoke]``.

``part=models`` compares the four factor models of Ranganath, Gerrish & Blei, 2014; ``part=curve`` runs black-box
variational inference and two samplers for some minutes each. Both read ``$ZOO_DATA/pbc/pbcseq.csv``, or the labs
of other patients with ``labs=FILE.csv columns=[NAME,NAME,...]``. Finished parts are kept and not repeated.
"""

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from examples.patients.experiment import BUDGETS, compare_models, run_sampler_benchmark
from examples.patients.labs import PBC_LABS, LabSplit, load_pbc, read_labs, split_labs
from zoo._constraints import POSITIVE, check_constraints
from zoo.cli import arguments_help, parse_arguments, path_field, user_errors, wants_help
from zoo.data._paths import expand_user
from zoo.inference.programs._program import data_root
from zoo.training import run_environment, write_json

SMOKE_MINUTES = 0.1
FILES = {"models": "models.json, models.csv, fits/", "curve": "curve.json, curve.csv, curve.png, curves/"}


@dataclass
class PatientsConfig:
    """Arguments of this script.

    Args:
        part: ``models`` to compare factor models, or ``curve`` to benchmark against samplers.
        labs: CSV file of other patients' labs; null for the PBC study.
        columns: names of the labs in the file.
        seeds: seeds of the fits; ``part=curve`` uses the first.
        minutes: time of each method in ``part=curve``.
        budget: ``full``, or ``smoke`` for a quick test of the whole path.
    """

    part: str = "models"
    labs: str | None = path_field(None)
    columns: list[str] = field(default_factory=lambda: list(PBC_LABS))
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    minutes: float = 20.0
    budget: str = "full"


def main() -> None:
    """Run the missing parts and print the results."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(PatientsConfig, str(__doc__)))
            return
        start, asked = time.monotonic(), check_arguments(parse_arguments(PatientsConfig, sys.argv[1:]))
        split = read_split(asked)
        folder = folder_of(asked)
        if asked.part == "models":
            found = compare_models(split, asked.seeds, BUDGETS[asked.budget], folder)
        else:
            found = run_sampler_benchmark(split, asked.seeds[0], asked.minutes, folder)
        seconds = round(time.monotonic() - start, 1)
        record = {
            "command": " ".join(["python -m examples.patients", *sys.argv[1:]]),
            **asdict(asked),
            "wall_seconds": seconds,
            **found,
        }
        write_json(folder / f"{asked.part}.json", record | run_environment())
        print("\n".join(found["found"]))
        print(f"results are in {folder}/: {FILES[asked.part]}")
        if asked.budget != "full":
            print("A smoke run, to see that all works. These are no results.")


def read_split(asked: PatientsConfig) -> LabSplit:
    """Read the labs of the PBC study, or of a file, of whose patients a fifth is to be predicted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has too few patients.
    """
    if asked.labs is not None:
        labs = read_labs(expand_user(asked.labs), asked.columns)
        return split_labs(labs, round(len(labs.values) / 5), seed=0)
    if (root := data_root()) is None:
        raise FileNotFoundError(
            "the labs are expected in $ZOO_DATA/pbc/pbcseq.csv, but ZOO_DATA is not set; set it, or use a file of "
            "your own: labs=FILE.csv"
        )
    return load_pbc(root)


def folder_of(asked: PatientsConfig) -> Path:
    """Return the folder of results, which depends on budget and data."""
    labs = "" if asked.labs is None else f"-{Path(asked.labs).stem}"
    return Path("runs") / f"patients{labs}{'' if asked.budget == 'full' else '-smoke'}"


def check_arguments(asked: PatientsConfig) -> PatientsConfig:
    """Check the arguments, and adapt them: ``part=curve`` uses one seed, and its smoke run is short.

    Raises:
        ValueError: an argument is invalid.
    """
    if asked.part not in FILES:
        raise ValueError(f"there is no part {asked.part!r}; choose one of {', '.join(FILES)}")
    if asked.budget not in BUDGETS:
        raise ValueError(f"there is no budget {asked.budget!r}; choose one of {', '.join(BUDGETS)}")
    if not asked.columns:
        raise ValueError("there must be at least one column of labs: columns=[NAME]")
    if not asked.seeds or min(asked.seeds) < 0:
        raise ValueError("there must be at least one seed, and none below 0: seeds=[1]")
    check_constraints({"minutes": asked.minutes}, {"minutes": POSITIVE})
    if asked.part == "curve":
        asked = replace(asked, seeds=asked.seeds[:1])
    return asked if asked.budget == "full" else replace(asked, minutes=min(asked.minutes, SMOKE_MINUTES))


if __name__ == "__main__":
    main()
