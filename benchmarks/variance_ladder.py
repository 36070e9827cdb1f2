"""Variance of the gradient of the ELBO, by estimator, on simulated patients.

``python benchmarks/variance_ladder.py [record=FILE.json] [patients=800] [steps=200]`` is the experiment of figure 2 of
Ranganath, Gerrish & Blei, "Black box variational inference", 2014. The data of the paper are private; here the patients
are simulated from the model, anew for each seed. The variance is measured for the initial guide, and after training.
The scale of the control variate is estimated for each parameter, without the particle that it is applied to.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI

from examples.patients import FactorFamily, Guide, model, simulate
from examples.patients.labs import Labs
from zoo.cli import arguments_help, parse_arguments, user_errors, wants_help
from zoo.inference.diagnostics import ALL, VarianceReport, default_estimators, variance_report
from zoo.inference.elbo import BlackBoxELBO
from zoo.training import run_environment, write_json

FAMILY = FactorFamily(series=True, positive=False)
NUM_LABS, BATCH = 17, 25  # labs, and patients per step, as in the paper
PARAMETERS = (ALL, "states.raw_mean")


@dataclass
class Arguments:
    """Arguments of this script.

    Args:
        patients: number of simulated patients.
        visits: mean number of visits of a patient.
        seeds: seeds of the patients and of the guides.
        steps: number of training steps before the second measurement.
        num_particles: number of particles of each estimate of the gradient.
        num_samples: number of gradients whose variance is measured.
        record: file for the numbers; null for none.
    """

    patients: int = 800
    visits: float = 12.0
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    steps: int = 200
    num_particles: int = 20
    num_samples: int = 20
    record: str | None = None


def train(guide: Guide, labs: Labs, steps: int) -> None:
    """Fit the guide to batches of patients."""
    elbo = BlackBoxELBO(10, vectorize_particles=True)
    svi = SVI(partial(model, FAMILY), guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    for _ in range(steps):
        svi.step(labs, BATCH)


def reports(arguments: Arguments, seed: int) -> Iterator[tuple[int, VarianceReport]]:
    """Yield numbers of training steps with the report of the guide after them."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    labs, _ = simulate(FAMILY, arguments.patients, NUM_LABS, seed, arguments.visits)
    guide = Guide(FAMILY, labs)
    for steps in dict.fromkeys((0, arguments.steps)):
        train(guide, labs, steps)
        yield (
            steps,
            variance_report(
                partial(model, FAMILY),
                guide,
                (labs,),
                num_samples=arguments.num_samples,
                num_particles=arguments.num_particles,
                estimators=default_estimators(arguments.num_particles, vectorize_particles=True, baselines=()),
                num_warmup=0,
            ),
        )


def rows(seed: int, steps: int, report: VarianceReport) -> list[dict[str, Any]]:
    """Return the rows of the record, with 95 % intervals."""
    chosen = [row for row in report.rows if row.parameter in PARAMETERS]
    return [
        {
            "seed": seed,
            "steps": steps,
            "parameter": row.parameter,
            "estimator": row.estimator,
            "variance": list(row.variance),
            "less_than_basic": list(row.reduction),
        }
        for row in chosen
    ]


def main() -> None:
    """Measure and print the table."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(Arguments, str(__doc__)))
            return
        arguments = parse_arguments(Arguments, sys.argv[1:])
        torch.set_num_threads(1)
        found = []
        print("\n| seed | steps | parameters | estimator | variance | less than basic |\n|" + " --- |" * 6)
        for seed in arguments.seeds:
            for steps, report in reports(arguments, seed):
                found += rows(seed, steps, report)
                for row in report.rows:
                    if row.parameter in PARAMETERS:
                        cells = (seed, steps, row.parameter, row.estimator, row.variance, f"× {row.reduction}")
                        print("|", " | ".join(map(str, cells)), "|", flush=True)
        if arguments.record is not None:
            write_json(
                Path(arguments.record),
                {"command": " ".join(["python", *sys.argv]), **asdict(arguments), "found": found} | run_environment(),
            )


if __name__ == "__main__":
    main()
