import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from zoo.cli.schemas import DATA, accepted_parameters, instantiate, target_name
from zoo.data import ImageData, ImageSet
from zoo.training import (
    Experiment,
    RunRecord,
    TrainingInterruptedError,
    fit,
    folder_lock,
    read_checkpoint,
    write_json,
    write_text,
)

DOWNLOADED = [target_name(DATA[name]) for name in ("mnist", "binarized_mnist")]


class RunResult(NamedTuple):
    """What a run or an evaluation reached."""

    metrics: dict[str, float]
    """By plain names; rates are fractions."""
    summary: str
    """The same in words."""
    checkpoint: Path
    """What was measured."""


def train(config: Mapping[str, Any], folder: Path, command: str, trust: bool = False) -> RunResult:
    """Train what the configuration says, measure it once on the test set, and leave everything in the folder.

    A folder that holds a run of the same configuration is continued, of another one refused.

    Args:
        config: resolved, plain data.
        folder: the run's folder.
        command: what a user types to repeat the run; for the record.
        trust: code of the user's own, such as a program, may be run. Kept nowhere.

    Raises:
        TrainingInterruptedError: the run was asked to stop.
        NonFiniteError: a loss or a gradient is NaN or infinite.
        OSError: the folder cannot be written to.
        ValueError: the configuration or its data are wrong, or another process is at work in the folder.
    """
    if not 0 <= config["seed"] < 2**32:
        raise ValueError(f"seed must be between 0 and {2**32 - 1}, got {config['seed']}")
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    experiment = make_experiment(config, trust)
    with folder_lock(folder):
        if config.get("init_from") and not (folder / "checkpoints" / "last.ckpt").exists():
            load_weights(experiment.module, Path(config["init_from"]))
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
                return RunResult({}, "", checkpoint)
            metrics = experiment.report(checkpoint, folder)
        except TrainingInterruptedError as stop:
            record.finish("interrupted", str(stop))
            raise
        except KeyboardInterrupt:
            record.finish("interrupted", "stopped while measuring")
            raise TrainingInterruptedError("stopped while measuring; the training is saved") from None
        except BaseException as error:
            with suppress(OSError):  # of a full disk or a folder that is gone the error itself speaks
                record.finish("failed", f"{type(error).__name__}: {error}")
            raise
        record.finish("finished", experiment.exit_reason, metrics)
    return RunResult(metrics, experiment.describe(metrics), checkpoint)


def evaluate(checkpoint: Path, folder: Path, render: bool = False, trust: bool = False) -> RunResult:
    """Measure a checkpoint on the test set of the data it was trained on, and draw its mistakes.

    Args:
        checkpoint: of a run.
        folder: where ``evaluation.json`` and the pictures go.
        render: also render an episode, as ``episode.gif``.
        trust: the code of a program of one's own may be run; that it could be when it was trained is not enough.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no checkpoint of this project; or the model plays no episodes.
    """
    experiment = make_experiment(read_checkpoint(checkpoint)["config"], trust)
    if render:
        experiment.render(checkpoint, folder / "episode.gif")
    metrics = experiment.evaluate(checkpoint, folder)
    write_json(folder / "evaluation.json", {"checkpoint": str(checkpoint), "metrics": metrics})
    return RunResult(metrics, experiment.describe(metrics), checkpoint)


def check_model_options(config: Mapping[str, Any], trust: bool = False) -> None:
    """Build a model for digits that may have to be fetched without them, so that its options are checked before.

    Raises:
        ValueError: an option is wrong.
    """
    digits = config["data"]
    if digits is None or digits["_target_"] not in DOWNLOADED or "data" not in accepted_parameters(config["model"]):
        return
    one = ImageSet(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    data = ImageData("digits", one, None, lambda: one, tuple("0123456789"), (0.0,))
    make_experiment(config, trust, data)


def check_logger(name: str) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ValueError: it is not; the command that installs it is named.
    """
    if name != "csv" and importlib.util.find_spec(name) is None:
        raise ValueError(f"logger={name} needs its package: pip install {name}")


def load_weights(module: pl.LightningModule, path: Path) -> None:
    """Let a training begin with the weights of a checkpoint, and with the running statistics beside them.

    Buffers of the module itself, such as the count of its environment steps, tell of the other training and stay as
    they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another model or other layers.
    """
    own = {name for name, _ in module.named_buffers(recurse=False)}
    checkpoint = read_checkpoint(path, type(module).__name__)
    saved, there = (
        {name: value for name, value in state.items() if name not in own}
        for state in (checkpoint["state_dict"], module.state_dict())
    )
    shapes, wanted = ({name: value.shape for name, value in state.items()} for state in (saved, there))
    if differing := sorted({name for name, _ in shapes.items() ^ wanted.items()}):
        raise ValueError(
            f"init_from={path} holds a model with other layers, as {', '.join(differing[:3])}; give the options that "
            "it was trained with"
        )
    module.load_state_dict(saved, strict=False)


def make_experiment(config: Mapping[str, Any], trust: bool = False, data: Any = None) -> Experiment:
    """Build what a model learns from, and the model for it.

    Args:
        config: of a run.
        trust: code of the user's own may be run.
        data: what takes the place of the data that the configuration names.

    Raises:
        ValueError: the configuration is wrong, or names data, an environment, a program or an estimator that the model
            has no use for.
    """
    wanted = accepted_parameters(config["model"])
    for name in ("data", "env", "env_kwargs", "program", "estimator"):
        if name not in wanted and config.get(name) not in (None, {}):
            raise ValueError(f"this model has no use for {name}: leave {name}=... away")
    for name in ("env", "program"):
        if name in wanted and config.get(name) is None:
            raise ValueError(f"this model cannot do without {name}: leave {name}=null away, or give {name}=NAME")
    given = {
        **{name: config.get(name) for name in ("env", "env_kwargs", "program", "estimator", "seed")},
        "trust": trust,
        "batch_size": config["trainer"]["batch_size"],
        "data": data or (instantiate(config["data"]) if "data" in wanted else None),
    }
    return instantiate(config["model"], **{name: value for name, value in given.items() if name in wanted})
