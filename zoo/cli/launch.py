"""From a checked command line to runs: one, or a sweep that goes on where one of its runs fails."""

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from zoo.cli.command_line import LENGTHS, Request, to_hydra
from zoo.cli.commands import check_logger, check_model_options, train
from zoo.cli.composition import (
    check_estimator_is_used,
    check_settings,
    load_run_config,
    register,
    replace_unavailable_data,
    resolve,
)
from zoo.cli.config_groups import configs_dir
from zoo.cli.errors import error_message, relative, remove_if_empty
from zoo.cli.invocation import command_name
from zoo.training import TrainingInterruptedError, extend_config

SHOWN = 4  # metrics of a run that the table of a sweep has place for


class SweepRun(NamedTuple):
    """A run of a sweep, and how it ended."""

    settings: Mapping[str, str]
    """What differs between the runs."""
    folder: Path
    metrics: Mapping[str, float]
    failure: str | None


def launch(request: Request) -> None:
    """Train what a command line asks for.

    Raises:
        ValueError: something is wrong with the settings; in a sweep before any run begins.
        ChildProcessError: runs of a sweep failed; the others have ended.
    """
    register()
    if not request.completion and request.value("resume") is None:
        check_settings(request)
    if request.sweep:
        sweep(request)
    else:
        run(request, request.arguments(), sys.argv)


def sweep(request: Request) -> None:
    """Train each run of a sweep, whatever becomes of the others, and print a table of them.

    Each is composed by itself: Hydra's own sweep composes first what all have in common, in which a model's options
    have no place if the model is swept over.

    Raises:
        ChildProcessError: some failed.
    """
    runs: list[SweepRun] = []
    command = sys.argv[: 2 if sys.argv[1:2] == ["train"] else 1]
    fixed = ",".join(x.key for x in request.settings if not x.swept)
    naming = [
        f"hydra.job.config.override_dirname.exclude_keys=[{fixed}]",
        "hydra.run.dir=${hydra.sweep.dir}/${hydra.sweep.subdir}",
    ]
    try:
        for one, differs in request.single_runs():
            name = " ".join(f"{key}={value}" for key, value in differs.items())
            print(f"\nRun {len(runs) + 1} of {request.runs}: {name}", flush=True)
            settings = [f"{x.key}={to_hydra(x.values[0])}" for x in one.settings]
            typed = [*command, *settings, *["trust=true"] * request.trust]
            ended = run_or_report(lambda one=one, typed=typed: run(one, [*one.arguments(), *naming], typed))  # type: ignore[misc]
            runs.append(SweepRun(differs, *ended))
    finally:
        if runs:
            print(f"\n{table(runs)}")
    if failed := [each for each in runs if each.failure is not None]:
        raise ChildProcessError(f"{len(failed)} of {len(runs)} runs failed; they are named above, with the reason")


def run(request: Request, arguments: Sequence[str], typed: Sequence[str]) -> tuple[Path, dict[str, float]]:
    """Compose and train one run, and return its folder and what it reached.

    Args:
        request: one run.
        arguments: its command line for Hydra.
        typed: ``sys.argv`` for the processes that Lightning starts, which are to do the same.
    """
    done: list[tuple[Path, dict[str, float]]] = []
    typed = list(typed)
    raised: list[Exception] = []

    def job(config: DictConfig) -> None:
        sys.argv[:] = typed
        overrides, folder = list(HydraConfig.get().overrides.task), Path(HydraConfig.get().runtime.output_dir)
        try:
            done.append((folder, train_one(config, overrides, folder, request)))
        except Exception as error:
            raised.append(error)  # not through Hydra, which has its own words for it

    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="train")(job)()
    if raised:
        raise raised[0]
    return done[0] if done else (Path(), {})  # Hydra was asked for something else than a run


def train_one(config: DictConfig, overrides: Sequence[str], folder: Path, request: Request) -> dict[str, float]:
    """Train one configuration in its own folder, and say what was reached."""
    choices = HydraConfig.get().runtime.choices
    with remove_if_empty(folder):
        if config.resume:
            lengths = {key: request.value(key) for key in LENGTHS if request.value(key) is not None}
            settings = extend_config(load_run_config(folder), lengths)
        else:
            check_estimator_is_used(config, list(overrides))
            check_model_options(resolve(config), request.trust)
            settings = resolve(replace_unavailable_data(config, choices, list(overrides)))
        check_logger(settings["logger"]["name"])
        command = f"{command_name('train')} {shlex.join(overrides)}"
        try:
            outcome = train(settings, folder, command, request.trust)
        except TrainingInterruptedError as stop:
            again = " trust=true" if request.trust else ""
            resume = shlex.quote(f"resume={relative(folder)}")
            print(f"\n{stop}. Go on with:  {command_name('train')} {resume}{again}")
            sys.exit(130)
        if outcome.summary:
            print(f"\n{outcome.summary}")
            left = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
            print(f"everything is in {relative(folder)}/: {left}")
            checkpoint = shlex.quote(f"checkpoint={relative(outcome.checkpoint)}")
            print(f"look closer:  {command_name('evaluate')} {checkpoint}")
        return outcome.metrics


def run_or_report(run: Callable[[], tuple[Path, dict[str, float]]]) -> tuple[Path, dict[str, float], str | None]:
    """Return folder and metrics of a run of a sweep; or, so that the others may run, the reason why it failed."""
    try:
        return *run(), None
    except Exception as error:
        sentence = error_message(error)
        if sentence is None or sys.flags.dev_mode:
            traceback.print_exc()
        sentence = sentence or f"{type(error).__name__}: {error}"
        print(f"\nError: {sentence}", file=sys.stderr)
        return Path(), {}, sentence


def table(runs: Sequence[SweepRun]) -> str:
    """Set the runs of a sweep against each other: what differs, what they reached and where they are.

    Example:
        >>> print(table([SweepRun({"seed": "1"}, Path("runs/a"), {"test_error": 0.25}, None)]))
        seed  test_error  folder
        1     0.25        runs/a
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    metrics = list(dict.fromkeys(name for run in runs for name in list(run.metrics)[:SHOWN]))[:SHOWN]
    rows = [[*keys, *metrics, "folder"]]
    for run in runs:
        reached = [f"{run.metrics[name]:.6g}" if name in run.metrics else "-" for name in metrics]
        end = str(relative(run.folder)) if run.failure is None else f"failed: {run.failure}"
        rows.append([*(run.settings.get(key, "") for key in keys), *reached, end])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
