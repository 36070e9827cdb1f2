"""Experiments of ``python -m examples.patients``: a comparison of four models, and one of inference methods."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from examples.patients.comparison import (
    Interval,
    conclusion,
    differences,
    mean_over_seeds,
    num_patients_better,
    per_lab,
    reference,
)
from examples.patients.fitting import default_settings
from examples.patients.labs import LabSplit
from examples.patients.plots import Progress, prediction_curves
from examples.patients.prediction import Prediction
from examples.patients.sampler_benchmark import METHODS, SAMPLER_SETTINGS, STEPS, Curve, Method
from examples.patients.study import DRAWS, FAMILIES, cached, load_prediction, run_key, study
from zoo.plotting import save_figure

BENCHMARK_FAMILY = FAMILIES["gamma_normal_ts"]


class Budget(NamedTuple):
    """Numbers of steps of the fits."""

    training: int
    inference: int


BUDGETS = {"full": Budget(STEPS, 1000), "smoke": Budget(20, 10)}


def compare_models(split: LabSplit, seeds: Sequence[int], budget: Budget, folder: Path) -> dict[str, Any]:
    """Fit each model with each seed, unless the folder contains that fit, and compare their predictions.

    Writes ``models.csv`` with a row for each test patient.

    Returns:
        Values for a record, with a summary as text under ``found``.
    """
    fits: dict[str, list[dict[str, Any]]] = {name: [] for name in FAMILIES}
    for seed in seeds:
        for name, family in FAMILIES.items():
            training, inference = (default_settings(family, steps) for steps in budget)
            wanted = run_key(split, family, training, inference, draws=DRAWS, seed=seed)
            say = progress_printer(f"{name}, seed {seed}", budget.training)
            make = partial(study, family, split, training, inference, seed, say)
            fits[name].append(cached(folder / "fits" / f"{name}-seed{seed}.json", wanted, make))
    predictions = {name: mean_over_seeds([load_prediction(each) for each in kept]) for name, kept in fits.items()}
    references = {
        name: reference(split.train, split.held_out, logarithms)
        for name, logarithms in (("normal", False), ("log_normal", True))
    }
    write_patients(folder / "models.csv", predictions | references)
    models = {name: per_lab(prediction) for name, prediction in (predictions | references).items()}
    pairs = differences(predictions)
    better = {(one, other): num_patients_better(predictions[one], predictions[other]) for one, other in pairs}
    return {
        "steps": budget._asdict(),
        "settings": {name: asdict(default_settings(family, budget.training)) for name, family in FAMILIES.items()},
        "patients": len(split.held_out.values),
        "held_out_labs": int(split.held_out.observed.sum()),
        "per_lab": {name: interval._asdict() for name, interval in models.items()},
        "per_lab_of_seeds": {name: [each["per_lab"] for each in kept] for name, kept in fits.items()},
        "differences": {
            " - ".join(pair): {**interval._asdict(), "paper": interval.verdict, "patients_better": better[pair]}
            for pair, interval in pairs.items()
        },
        "bounds": {name: [each["bounds"][-3:] for each in kept] for name, kept in fits.items()},
        "fit_seconds": {name: [each["seconds"] for each in kept] for name, kept in fits.items()},
        "found": [*summary_lines(models, fits, pairs, better), f"{conclusion(pairs)}."],
    }


def progress_printer(what: str, steps: int) -> Callable[[int, float], bool]:
    """Return a callback that prints the mean ELBO of each tenth of a fit."""
    part: list[float] = []

    def watch(step: int, bound: float) -> bool:
        part.append(bound)
        if step % max(steps // 10, 1) == 0:
            print(f"{what}: step {step:,} of {steps:,}, ELBO {mean(part):,.0f}", flush=True)
            part.clear()
        return False

    return watch


def summary_lines(
    models: Mapping[str, Interval],
    fits: Mapping[str, Sequence[Mapping[str, Any]]],
    pairs: Mapping[tuple[str, str], Interval],
    better: Mapping[tuple[str, str], int],
) -> Iterable[str]:
    """Return one line per model and per pair of models."""
    for name, interval in models.items():
        seeds = ", ".join(f"{each['per_lab']:.3f}" for each in fits.get(name, ()))
        yield f"{name}: {interval} nats per held-out lab" + (f"; by seed {seeds}" if seeds else "")
    for (one, other), interval in pairs.items():
        yield (
            f"{one} - {other}: {interval} nats, paired over patients, better for {better[one, other]} of them; "
            f"the paper's order is {interval.verdict}"
        )


def write_patients(path: Path, predictions: Mapping[str, Prediction]) -> None:
    """Write a row for each test patient: number of held-out labs, and their log-likelihood by model."""
    labs = next(iter(predictions.values())).labs.tolist()
    columns = [prediction.log_likelihood.tolist() for prediction in predictions.values()]
    rows = zip(range(len(labs)), labs, *columns, strict=True)
    write_csv(path, ["patient", "held_out_labs", *predictions], rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def run_sampler_benchmark(split: LabSplit, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Run each method for a number of minutes, unless its curve is cached in the folder, and plot the curves.

    Writes ``curve.csv`` and ``curve.png``.

    Raises:
        ValueError: ``minutes`` is not a positive number.

    Returns:
        Values for a record, with a summary as text under ``found``.
    """
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes must be a positive number, got {minutes}")
    curves: dict[str, Curve] = {}
    for name, method in METHODS.items():
        wanted = run_key(
            split,
            BENCHMARK_FAMILY,
            default_settings(BENCHMARK_FAMILY, STEPS),
            SAMPLER_SETTINGS,
            method=name,
            minutes=minutes,
            seed=seed,
        )
        make = partial(run_timed, name, method, split, minutes, seed)
        kept = cached(folder / "curves" / f"{name.replace(' ', '_')}-seed{seed}.json", wanted, make)
        curves[name] = Curve(*(kept[field] for field in Curve._fields))
    drawn = {
        name: Progress(np.array(curve.seconds), np.array(curve.per_lab), curve.warm_up)
        for name, curve in curves.items()
    }
    save_figure(prediction_curves(drawn), folder / "curve.png")
    rows = [(name, *point) for name, curve in curves.items() for point in zip(*curve[:2], strict=True)]
    write_csv(folder / "curve.csv", ["method", "seconds", "per_lab"], rows)
    return {
        "model": BENCHMARK_FAMILY.name,
        "settings": asdict(default_settings(BENCHMARK_FAMILY, STEPS)) | asdict(SAMPLER_SETTINGS),
        "curves": {name: curve._asdict() for name, curve in curves.items()},
        "found": [describe_curve(name, curve) for name, curve in curves.items()],
    }


def run_timed(name: str, method: Method, split: LabSplit, minutes: float, seed: int) -> dict[str, Any]:
    """Print the name of a method and run it."""
    print(f"{name} for {minutes:g} minutes", flush=True)
    return method(BENCHMARK_FAMILY, split, 60 * minutes, seed)._asdict()


def describe_curve(name: str, curve: Curve) -> str:
    """Return the final and the best value of a method.

    Example:
        >>> describe_curve("NUTS", Curve([1.0, 60.0], [-9.0, -2.0], 30.0, 200))
        'NUTS: -2.000 nats per held-out lab after 60 s and 200 steps; best -2.000 after 60 s; warm-up until 30 s'
    """
    best = max(range(len(curve.per_lab)), key=curve.per_lab.__getitem__)
    adapted = f"; warm-up until {curve.warm_up:.0f} s" if curve.warm_up else ""
    return (
        f"{name}: {curve.per_lab[-1]:.3f} nats per held-out lab after {curve.seconds[-1]:.0f} s and {curve.steps:,} "
        f"steps; best {curve.per_lab[best]:.3f} after {curve.seconds[best]:.0f} s{adapted}"
    )
