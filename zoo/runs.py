from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from omegaconf import OmegaConf

from zoo.config import build, taken
from zoo.training import Interrupted, RunRecord, fit, folder_lock, read_checkpoint, write_json, write_text


class Outcome(NamedTuple):
    """What a run or an evaluation reached."""

    figures: dict[str, float]
    """By plain names; rates are fractions."""
    summary: str
    """The same in words."""
    checkpoint: Path
    """What was measured."""


def train(config: Mapping[str, Any], folder: Path, command: str) -> Outcome:
    """Train what the configuration says, measure it once on the test set, and leave everything in the folder.

    A folder that holds a run of the same configuration is continued, of another one refused.

    Args:
        config: resolved, plain data.
        folder: the run's folder.
        command: what a user types to repeat the run; for the record.

    Raises:
        Interrupted: the run was asked to stop.
        NonFiniteError: a loss or a gradient is NaN or infinite.
        OSError: the folder cannot be written to.
        ValueError: the configuration or its data are wrong, or another process is at work in the folder.
    """
    if not 0 <= config["seed"] < 2**32:
        raise ValueError(f"seed must be between 0 and {2**32 - 1}, got {config['seed']}")
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    experiment = make_experiment(config)
    with folder_lock(folder):
        record = RunRecord(folder, config, command, experiment.name)
        # Before the record, so that a run that is recorded can be resumed.
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        record.begin()
        try:
            checkpoint = fit(
                experiment.module,
                experiment.loaders,
                folder,
                config,
                experiment.monitor,
                experiment.callbacks(),
                experiment.monitor_mode,
            )
            if experiment.module.global_rank != 0:
                return Outcome({}, "", checkpoint)
            figures = experiment.report(checkpoint, folder)
        except Interrupted as stop:
            record.finish("interrupted", str(stop))
            raise
        except KeyboardInterrupt:
            record.finish("interrupted", "stopped while measuring")
            raise Interrupted("stopped while measuring; the training is saved") from None
        except BaseException as error:
            with suppress(OSError):  # of a full disk or a folder that is gone the error itself speaks
                record.finish("failed", f"{type(error).__name__}: {error}")
            raise
        record.finish("finished", "all epochs done", figures)
    return Outcome(figures, experiment.describe(figures), checkpoint)


def evaluate(checkpoint: Path, folder: Path, film: bool = False, trust: bool = False) -> Outcome:
    """Measure a checkpoint on the test set of the data it was trained on, and draw its mistakes.

    Args:
        checkpoint: of a run.
        folder: where ``evaluation.json`` and the pictures go.
        film: also film an episode, as ``episode.gif``.
        trust: the code of a program of one's own may be run; that it could be when it was trained is not enough.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no checkpoint of this project; or an episode cannot be filmed.
    """
    experiment = make_experiment({**read_checkpoint(checkpoint)["config"], "trust": trust})
    if film and not hasattr(experiment, "film"):
        raise ValueError("this model plays no episodes: leave render away")
    folder.mkdir(parents=True, exist_ok=True)
    if film:
        experiment.film(checkpoint, folder / "episode.gif")
    figures = experiment.evaluate(checkpoint, folder)
    write_json(folder / "evaluation.json", {"checkpoint": str(checkpoint), "metrics": figures})
    return Outcome(figures, experiment.describe(figures), checkpoint)


def make_experiment(config: Mapping[str, Any]) -> Any:
    """Build what a model learns from, and the model for it.

    Raises:
        ValueError: the configuration is wrong, or names data, an environment, a program or an estimator that the model
            has no use for.
    """
    wanted = taken(config["model"])
    for name in ("data", "env", "program", "estimator"):
        if name not in wanted and config.get(name) is not None:
            raise ValueError(f"this model has no use for {name}: leave {name}=... away")
    given = {
        **{name: config.get(name) for name in ("env", "program", "estimator", "seed")},
        "trust": config.get("trust", False),
        "batch_size": config["trainer"]["batch_size"],
        "data": build(config["data"]) if "data" in wanted else None,
    }
    return build(config["model"], **{name: value for name, value in given.items() if name in wanted})
