import importlib.util
import inspect
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from zoo.cli._schemas import DATA, find_choice, instantiate
from zoo.data import CaptionData, ImageData, ImageSet
from zoo.gradients import Reinforce
from zoo.training import Experiment, TrainingInterruptedError, fit, read_checkpoint, write_json
from zoo.training._files import folder_lock, write_text
from zoo.training._record import RunRecord

_DOWNLOADED = [DATA[name].target for name in ("mnist", "binarized_mnist")]


class RunResult(NamedTuple):
    """Result of a training or an evaluation: metrics, the same as text, and the checkpoint that was evaluated."""

    metrics: dict[str, float]
    summary: str
    checkpoint: Path


def train(config: Mapping[str, Any], folder: Path, command: str, trust: bool = False) -> RunResult:
    """Train a model, evaluate it once on the test set, and write all results to the run folder.

    A run in the folder with the same configuration is resumed.
    """
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    experiment = make_experiment(config, trust)
    with folder_lock(folder):
        if experiment.needs_initial_weights and not config.get("init_from"):
            raise ValueError(
                "this training starts from the weights of another one: set init_from=RUN/checkpoints/best.ckpt"
            )
        if config.get("init_from") and not (folder / "checkpoints" / "last.ckpt").exists():
            load_weights(experiment.module, Path(config["init_from"]))
        record = RunRecord(folder, config, command, experiment.name)
        # Written before the record, so that every recorded run can be resumed.
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        record.begin()
        try:
            checkpoint = fit(experiment, folder, config)
            if experiment.module.global_rank != 0:
                return RunResult({}, "", checkpoint)
            metrics = experiment.report(checkpoint, folder)
        except TrainingInterruptedError as stop:
            record.finish("interrupted", str(stop))
            raise
        except KeyboardInterrupt:
            record.finish("interrupted", "stopped during the evaluation")
            raise TrainingInterruptedError("stopped during the evaluation; the training is saved") from None
        except BaseException as error:
            with suppress(OSError):  # a full disk or missing folder: the error itself is raised
                record.finish("failed", f"{type(error).__name__}: {error}")
            raise
        record.finish("finished", experiment.exit_reason, metrics)
    return RunResult(metrics, experiment.describe(metrics), checkpoint)


def evaluate(checkpoint: Path, folder: Path, render: bool = False, trust: bool = False) -> RunResult:
    """Evaluate a checkpoint on the test set or in the environment of its run."""
    experiment = make_experiment(read_checkpoint(checkpoint)["config"], trust)
    if render:
        experiment.render(checkpoint, folder / "episode.gif")
    metrics = experiment.evaluate(checkpoint, folder)
    write_json(folder / "evaluation.json", {"checkpoint": str(checkpoint), "metrics": metrics})
    return RunResult(metrics, experiment.describe(metrics), checkpoint)


def check_model_options(config: Mapping[str, Any], trust: bool = False) -> None:
    """Check the options of a model before its data set is downloaded, by building it for a single digit."""
    source = config["data"]
    if source is None or source["_target_"] not in _DOWNLOADED or "data" not in find_choice(config["model"]).parameters:
        return
    digit = ImageSet(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    data = ImageData("digits", digit, None, lambda: digit, tuple("0123456789"), (0.0,))
    make_experiment(config, trust, data)


def check_logger(name: str) -> None:
    """Check that the package of a logger is installed."""
    if name != "csv" and importlib.util.find_spec(name) is None:
        raise ValueError(f"logger={name} needs its package: pip install {name}")


def load_weights(module: pl.LightningModule, path: Path) -> None:
    """Initialize a module with the weights and running statistics of a checkpoint.

    The module's own buffers, such as its count of environment steps, belong to the other training and are not loaded;
    neither is a baseline of another kind.
    """
    own_buffers = {name for name, _ in module.named_buffers(recurse=False)}
    checkpoint = read_checkpoint(path, type(module).__name__)
    saved, expected = (
        {name: value for name, value in state.items() if name not in own_buffers}
        for state in (checkpoint["state_dict"], module.state_dict())
    )
    shapes = [{name: value.shape for name, value in state.items()} for state in (saved, expected)]
    differing = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
    baselines = tuple(f"{name}.baseline." for name, part in module.named_modules() if isinstance(part, Reinforce))
    if baselines and all(name.startswith(baselines) for name in differing):
        saved = {name: value for name, value in saved.items() if name not in differing}
    elif differing:
        raise ValueError(
            f"init_from={path} holds a model with other layers ({', '.join(differing[:3])}); set the options "
            "that it was trained with"
        )
    module.load_state_dict(saved, strict=False)


def _check_data_type(config: Mapping[str, Any], required: type) -> None:
    """Check that the data are of the type that the model needs, labeled or captioned images."""
    source = find_choice(config["data"])
    if inspect.signature(source.builder).return_annotation is not required:
        what = "captioned images" if required is CaptionData else "labeled images"
        kinds = {name: inspect.signature(choice.builder).return_annotation for name, choice in DATA.items()}
        chosen = next((name for name, choice in DATA.items() if choice is source), source.target)
        others = "|".join(name for name, kind in kinds.items() if kind is required)
        raise ValueError(f"this model needs {what}, which data={chosen} does not provide: set data={others}")


def make_experiment(config: Mapping[str, Any], trust: bool = False, data: Any = None) -> Experiment:
    """Instantiate the experiment of a configuration."""
    accepted = find_choice(config["model"]).parameters
    for name in ("data", "env", "env_kwargs", "program", "estimator"):
        if name not in accepted and config.get(name) not in (None, {}):
            raise ValueError(f"this model does not use {name}: remove {name}=...")
        if name in ("env", "program") and name in accepted and config.get(name) is None:
            raise ValueError(f"this model needs {name}: set {name}=NAME")
    if data is None and "data" in accepted and config.get("data"):
        _check_data_type(config, accepted["data"].annotation)
    injected = {
        **{name: config.get(name) for name in ("env", "env_kwargs", "program", "estimator", "seed")},
        "trust": trust,
        "batch_size": config["trainer"]["batch_size"],
        "data": data or (instantiate(config["data"]) if "data" in accepted else None),
    }
    return instantiate(config["model"], **{name: value for name, value in injected.items() if name in accepted})
