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

from zoo.cli.command_line import LENGTHS, Request
from zoo.cli.commands import check_before_download, check_logger, train
from zoo.cli.composition import (
    check_settings,
    kept_config,
    plain,
    refuse_unused_estimator,
    register,
    with_available_data,
)
from zoo.cli.config_groups import configs_dir
from zoo.cli.errors import not_left_empty, one_sentence, relative
from zoo.cli.invocation import command_name
from zoo.training import Interrupted, extended

SHOWN = 4  # figures of a run that the table of a sweep has place for


class Ended(NamedTuple):
    """A run of a sweep, and how it ended."""

    settings: Mapping[str, str]
    """What differs between the runs."""
    folder: Path
    figures: Mapping[str, float]
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
    runs: list[Ended] = []
    raised: list[Exception] = []

    def job(config: DictConfig) -> None:
        sys.argv[:] = typed  # for processes that Lightning starts, which are to do the same
        overrides, folder = list(HydraConfig.get().overrides.task), Path(HydraConfig.get().runtime.output_dir)
        if not request.sweep:
            try:
                train_one(config, overrides, folder, request)
            except Exception as error:
                raised.append(error)  # not through Hydra, which has its own words for it
            return
        swept = {x.key for x in request.settings if x.swept}
        differs = dict(override.split("=", 1) for override in overrides if override.partition("=")[0] in swept)
        name = " ".join(f"{key}={value}" for key, value in differs.items())
        print(f"\nRun {len(runs) + 1} of {request.runs}: {name}", flush=True)
        runs.append(Ended(differs, folder, *caught(lambda: train_one(config, overrides, folder, request))))

    typed = list(sys.argv)
    sys.argv[1:] = request.arguments()
    try:
        hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="train")(job)()
    finally:
        if runs:
            print(f"\n{table(runs)}")
    if raised:
        raise raised[0]
    if failed := [run for run in runs if run.failure is not None]:
        raise ChildProcessError(f"{len(failed)} of {len(runs)} runs failed; they are named above, with the reason")


def train_one(config: DictConfig, overrides: Sequence[str], folder: Path, request: Request) -> dict[str, float]:
    """Train one configuration in its own folder, and say what was reached."""
    choices = HydraConfig.get().runtime.choices
    with not_left_empty(folder):
        if config.resume:
            lengths = {key: request.value(key) for key in LENGTHS if request.value(key) is not None}
            settings = extended(kept_config(folder), lengths)
        else:
            refuse_unused_estimator(config, list(overrides))
            check_before_download(plain(config), request.trust)
            settings = plain(with_available_data(config, choices, list(overrides)))
        check_logger(settings["logger"]["name"])
        command = f"{command_name('train')} {shlex.join(overrides)}"
        try:
            outcome = train(settings, folder, command, request.trust)
        except Interrupted as stop:
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
        return outcome.figures


def caught(run: Callable[[], dict[str, float]]) -> tuple[dict[str, float], str | None]:
    """Return the figures of a run of a sweep; or, so that the others may run, the reason why it failed."""
    try:
        return run(), None
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None or sys.flags.dev_mode:
            traceback.print_exc()
        sentence = sentence or f"{type(error).__name__}: {error}"
        print(f"\nError: {sentence}", file=sys.stderr)
        return {}, sentence


def table(runs: Sequence[Ended]) -> str:
    """Set the runs of a sweep against each other: what differs, what they reached and where they are.

    Example:
        >>> print(table([Ended({"seed": "1"}, Path("runs/a"), {"test_error": 0.25}, None)]))
        seed  test_error  folder
        1     0.25        runs/a
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    figures = list(dict.fromkeys(name for run in runs for name in list(run.figures)[:SHOWN]))[:SHOWN]
    rows = [[*keys, *figures, "folder"]]
    for run in runs:
        reached = [f"{run.figures[name]:.6g}" if name in run.figures else "-" for name in figures]
        end = str(relative(run.folder)) if run.failure is None else f"failed: {run.failure}"
        rows.append([*(run.settings.get(key, "") for key in keys), *reached, end])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
