"""Configurations: composed by Hydra from ``configs/`` and the command line, or kept by a run."""

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from zoo.config import DATA, MODELS, PARTS, TrainConfig, schema, target
from zoo.data import BinarizedMnistUnavailable, MnistUnavailable, find_binarized_mnist, find_mnist

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).parents[1] / "configs"
INSTEAD = {  # what takes the place of data that cannot be had, and what is said then
    "binarized_mnist": (
        "mnist",
        "Using mnist instead, binarised dynamically: its pixels are drawn anew each time a digit is given. "
        "Bounds on it are not comparable with any on the static binarisation.",
    ),
    "mnist": (
        "mnist_5k",
        "Using mnist-5k instead: 5,000 real digits that come with a package. "
        "Errors and bounds on them are not comparable with any on MNIST.",
    ),
}


def options(group: str) -> list[str]:
    """Names that may be chosen in a group of ``configs/``."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def register() -> None:
    """Make the schemas known to Hydra, and the name of a run's folder."""
    store = ConfigStore.instance()
    store.store("schema", TrainConfig)
    for name, (builder, options_of) in MODELS.items():
        store.store(name, schema(builder, options_of), group="schema/model")
    for name, builder in DATA.items():
        store.store(name, schema(builder, builder), group="schema/data")
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)


def run_folder(resume: str | None, model: str | None, overrides: str) -> str:
    """Name a run's folder: the one to resume, else ``runs/<model>/<time>-<hash of what was asked for>``.

    Example:
        >>> run_folder("runs/ram/2026-01-01_00-00-00-abcdef", "ram", "")
        'runs/ram/2026-01-01_00-00-00-abcdef'
    """
    if resume:
        return resume
    asked = hashlib.sha256(overrides.encode()).hexdigest()[:6]
    return f"runs/{model}/{time.strftime('%Y-%m-%d_%H-%M-%S')}-{asked}"


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a configuration to dicts, lists and numbers.

    Raises:
        ValueError: a value that has no default was not given, or no model was chosen.
    """
    if config.model is None:
        raise ValueError(f"choose a model: model={'|'.join(options('model'))}")
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given, such as {missing[0]}=...")
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return resolved


def kept_config(folder: Path) -> DictConfig:
    """Read the configuration that a run left in its folder.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "config.yaml"
    try:
        config = OmegaConf.load(path)
    except Exception as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); the run cannot be resumed") from error
    if not isinstance(config, DictConfig) or not config.keys() >= PARTS:
        raise ValueError(f"{path} is damaged (parts are missing); the run cannot be resumed")
    return config


def refuse_unused_estimator(config: DictConfig, overrides: list[str]) -> None:
    """Refuse an estimator for a model that has none: without this the choice would be lost.

    Args:
        config: as composed.
        overrides: the command line.

    Raises:
        ValueError: there is one.
    """
    asked = [override for override in overrides if override.startswith("estimator=")]
    if asked and config.model is not None and config.estimator is None:
        raise ValueError(f"this model has no use for an estimator: leave {asked[0]} away")


def with_available_data(config: DictConfig, choices: Mapping[str, str | None], overrides: list[str]) -> DictConfig:
    """Compose again with the digits that are at hand if others were asked for and cannot be had.

    Where no experiment was chosen the model's recipe for few digits replaces the one for MNIST; what the user set on
    the command line stays.

    Args:
        config: as composed.
        choices: option chosen in each group.
        overrides: the command line.
    """
    data = choices["data"]
    while data in INSTEAD and config.data.get("_target_") == target(DATA[data]) and (reason := unavailable(data)):
        data, notice = INSTEAD[data]
        logger.warning("%s.\n%s\n", reason, notice)
        kept = [override for override in overrides if not override.startswith("data=")]
        recipe = f"{choices['model']}_{data}"
        if choices["experiment"] in (None, "null") and recipe in options("experiment"):
            kept.append(f"experiment={recipe}")
        config = hydra.compose("train", overrides=[*kept, f"data={data}"])
    return config


def unavailable(data: str) -> Exception | None:
    """Tell why digits cannot be had; None if they can."""
    try:
        find_mnist() if data == "mnist" else find_binarized_mnist()
    except (MnistUnavailable, BinarizedMnistUnavailable) as reason:
        return reason
    return None
