"""Runs of a command line: a single one, or a sweep that continues when one of its runs fails."""

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from zoo.cli._command_line import LENGTH_KEYS, Request, to_hydra
from zoo.cli._commands import check_logger, check_model_options, train
from zoo.cli._composition import (
    check_estimator_is_used,
    check_settings,
    load_run_config,
    register,
    replace_unavailable_data,
    resolve,
)
from zoo.cli._config_groups import configs_dir
from zoo.cli._errors import INTERRUPTED, RunFailedError, error_message, relative, remove_if_empty
from zoo.cli._invocation import command_name
from zoo.training import TrainingInterruptedError, extend_config

_NUM_METRICS = 4  # columns of a sweep's table


class SweepRun(NamedTuple):
    """Result of a run in a sweep, with the settings that differ between the runs."""

    settings: Mapping[str, str]
    folder: Path
    metrics: Mapping[str, float]
    failure: str | None


def launch(request: Request) -> None:
    """Train the runs of a command line."""
    register()
    if not request.completion and request.value("resume") is None:
        check_settings(request)
    if request.sweep:
        _sweep(request)
    else:
        _run(request, request.arguments(), sys.argv)


def _sweep(request: Request) -> None:
    # Each run is composed by itself: Hydra's own sweep first composes what all runs have in common, where the options
    # of a model are unknown if the model is swept over.
    runs: list[SweepRun] = []
    command = sys.argv[: 2 if sys.argv[1:2] == ["train"] else 1]
    fixed = ",".join(x.key for x in request.settings if not x.swept)
    naming = [
        f"hydra.job.config.override_dirname.exclude_keys=[{fixed}]",
        "hydra.run.dir=${hydra.sweep.dir}/${hydra.sweep.subdir}",
    ]
    try:
        for one, swept in request.single_runs():
            name = " ".join(f"{key}={value}" for key, value in swept.items())
            print(f"\nRun {len(runs) + 1} of {request.runs}: {name}", flush=True)
            settings = [f"{x.key}={to_hydra(x.values[0])}" for x in one.settings]
            command_line = [*command, *settings, *["trust=true"] * request.trust]
            run = partial(_run, one, [*one.arguments(), *naming], command_line)
            runs.append(SweepRun(swept, *run_or_report(run)))
    finally:
        if runs:
            print(f"\n{table(runs)}")
    if failed := [run for run in runs if run.failure is not None]:
        raise RunFailedError(f"{len(failed)} of {len(runs)} runs failed; the table above lists them with the reasons")


def _run(request: Request, arguments: Sequence[str], command_line: Sequence[str]) -> tuple[Path, dict[str, float]]:
    """Train a single run, and return its folder and metrics."""
    done: list[tuple[Path, dict[str, float]]] = []
    raised: list[Exception] = []
    command_line = list(command_line)

    def job(config: DictConfig) -> None:
        sys.argv[:] = command_line
        overrides, folder = list(HydraConfig.get().overrides.task), Path(HydraConfig.get().runtime.output_dir)
        try:
            done.append((folder, _train(config, overrides, folder, request)))
        except Exception as error:
            raised.append(error)  # Hydra would print its own message

    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="train")(job)()
    if raised:
        raise raised[0]
    return done[0] if done else (Path(), {})  # a flag such as --cfg, with which Hydra runs nothing


def _train(config: DictConfig, overrides: Sequence[str], folder: Path, request: Request) -> dict[str, float]:
    choices = HydraConfig.get().runtime.choices
    with remove_if_empty(folder):
        if config.resume:
            lengths = {key: request.value(key) for key in LENGTH_KEYS if request.value(key) is not None}
            settings = extend_config(load_run_config(folder), lengths)
        else:
            check_estimator_is_used(config, list(overrides))
            check_model_options(resolve(config), request.trust)
            settings = resolve(replace_unavailable_data(config, choices, list(overrides)))
        check_logger(settings["logger"]["name"])
        command = f"{command_name('train')} {shlex.join(overrides)}"
        try:
            result = train(settings, folder, command, request.trust)
        except TrainingInterruptedError as stop:
            trust = " trust=true" if request.trust else ""
            resume = shlex.quote(f"resume={relative(folder)}")
            print(f"\n{stop}. Resume with:  {command_name('train')} {resume}{trust}")
            sys.exit(INTERRUPTED)
        if result.summary:
            print(f"\n{result.summary}")
            files = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
            print(f"results are in {relative(folder)}/: {files}")
            checkpoint = shlex.quote(f"checkpoint={relative(result.checkpoint)}")
            print(f"evaluate with:  {command_name('evaluate')} {checkpoint}")
        return result.metrics


def run_or_report(run: Callable[[], tuple[Path, dict[str, float]]]) -> tuple[Path, dict[str, float], str | None]:
    """Return folder and metrics of a run in a sweep, or the reason for its failure."""
    try:
        return *run(), None
    except Exception as error:
        message = error_message(error)
        if message is None or sys.flags.dev_mode:
            traceback.print_exc()
        message = message or f"{type(error).__name__}: {error}"
        print(f"\nError: {message}", file=sys.stderr)
        return Path(), {}, message


def table(runs: Sequence[SweepRun]) -> str:
    """Return a table of a sweep's runs: differing settings, metrics and folders."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    metrics = list(dict.fromkeys(name for run in runs for name in list(run.metrics)[:_NUM_METRICS]))[:_NUM_METRICS]
    rows = [[*keys, *metrics, "folder"]]
    for run in runs:
        values = [f"{run.metrics[name]:.6g}" if name in run.metrics else "-" for name in metrics]
        result = str(relative(run.folder)) if run.failure is None else f"failed: {run.failure}"
        rows.append([*(run.settings.get(key, "") for key in keys), *values, result])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
