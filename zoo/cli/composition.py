"""Configurations: composed by Hydra from ``configs/`` and the command line, or kept by a run."""

import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from zoo.cli.command_line import FOLDERS, LIGHTNING, OPEN, Request
from zoo.cli.config_groups import configs_dir, groups, model_of, options
from zoo.cli.invocation import command_name
from zoo.cli.options import Option, find_same_name, nearest_key
from zoo.cli.schemas import DATA, MODELS, TrainConfig, check_config, known_options, option_names, schema, target_name
from zoo.data import DatasetUnavailableError, find_binarized_mnist, find_mnist

logger = logging.getLogger(__name__)

LONGEST = 80  # letters of what differs, in the name of a folder
FALLBACK_DATA = {  # what takes the place of data that cannot be had, and what is said then
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


def register() -> None:
    """Make the schemas known to Hydra, and the name of a run's folder."""
    store = ConfigStore.instance()
    store.store("schema", TrainConfig)
    for name, (builder, options_of) in MODELS.items():
        store.store(name, schema(builder, options_of), group="schema/model")
    for name, builder in DATA.items():
        store.store(name, schema(builder, builder), group="schema/data")
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True, use_cache=True)


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


def sweep_folder(resume: str | None, model: str | None, differs: str) -> str:
    """Name the folder of a run of a sweep after what differs between the runs: its settings ``key=value``.

    Example:
        >>> sweep_folder(None, "ram", "model.lr=0.1,seed=2")[-14:]
        '-lr-0.1-seed-2'
    """
    if resume:
        return resume
    short = re.sub(r"(^|,)[+]*(?:\w+\.)*(\w+)=", r"-\2-", differs).strip("-")
    words = re.sub(r"[^\w.+-]+", "-", short)[:LONGEST].strip("-")
    if words != short or not words:  # two runs may now have the same name
        words = f"{words}-{hashlib.sha256(differs.encode()).hexdigest()[:6]}".strip("-")
    return f"runs/{model}/{time.strftime('%Y-%m-%d_%H-%M-%S')}-{words}"


def resolve(config: DictConfig) -> dict[str, Any]:
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


def load_run_config(folder: Path) -> dict[str, Any]:
    """Read the configuration that a run left in its folder, as plain data: nothing in it is filled in or run.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "config.yaml"
    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); the run cannot be resumed") from error
    try:
        if not isinstance(config, dict):
            raise ValueError("parts are missing")
        check_config(config)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); the run cannot be resumed") from error
    config.pop("trust", None)  # given on the command line each time; older runs kept it
    return {str(key): value for key, value in config.items()}


def compose_config(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that settings lead to, as ``zoo train`` composes it, as plain data."""
    register()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return resolve(compose("train", list(overrides)))


@lru_cache(maxsize=64)
def compose_options(choices: tuple[str, ...]) -> dict[str, Option]:
    """Return all options of a run by key, for choices in configuration groups such as ``model=ram``.

    Raises:
        ValueError: the choices do not go together.
    """
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", list(choices))
    return known_options(OmegaConf.to_container(config))  # type: ignore[arg-type]


def check_settings(request: Request) -> None:
    """Refuse settings that no run has use for, and values that are of another type or out of their range.

    Args:
        request: a command line that resumes nothing.

    Raises:
        ValueError: there is one; the nearest option is named.
    """
    for choices in request.choices():
        check_experiment(choices)
        known = compose_options(choices)
        for setting in request.settings:
            if setting.sign and (setting.key in known or setting.key in groups()):
                raise ValueError(
                    f"options are neither added nor removed: write {setting.key}=VALUE, without {setting.sign}"
                )
            if setting.key in (*groups(), *FOLDERS, *LIGHTNING):
                continue
            if (root := setting.key.partition(".")[0]) in OPEN and root in known:
                continue
            if setting.key.endswith("._target_"):
                raise ValueError(
                    f"_target_ {setting.values[0]!r} may not be built; choose a model and data from configs/"
                )
            if setting.key not in known:
                raise ValueError(unknown_option(setting.key, known, choices))
            option = known[setting.key]
            for value in setting.values:
                is_word = option.is_text and isinstance(value, int | float)  # as in logger.project=2026
                option.check(str(value) if is_word else value)


def check_experiment(choices: Sequence[str]) -> None:
    """Refuse an experiment beside another model than its own.

    Raises:
        ValueError: both are chosen.
    """
    chosen = dict(choice.split("=", 1) for choice in choices)
    experiment, model = chosen.get("experiment", "null"), chosen.get("model")
    if experiment != "null" and model not in (None, own := model_of(experiment)):
        raise ValueError(f"experiment={experiment} is one of model={own}: leave model={model} away")


def unknown_option(key: str, known: Mapping[str, Option], choices: Sequence[str]) -> str:
    """Say that there is no such option, and which one was most likely meant, or which choice has it."""
    if not any(option.startswith("model.") for option in known) and key not in groups():
        return f"there is no option {key} without a model: choose one, model={'|'.join(options('model'))}"
    what = " ".join(choices)
    same = find_same_name(key, known)
    for group in () if same else ("model", "data"):
        whole = key if key.startswith(f"{group}.") else f"{group}.{key}"
        if elsewhere := [f"{group}={name}" for name in options(group) if whole in option_names(group, name)]:
            return f"{what} has no option {key}; {whole} is one of {', '.join(elsewhere)}"
    if (near := same or nearest_key(key, known)) is not None:
        return f"{what} has no option {key}; did you mean {near}?"
    return f"{what} has no option {key}; {command_name('train')} {what} --help lists those that there are"


def check_estimator_is_used(config: DictConfig, overrides: list[str]) -> None:
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


def replace_unavailable_data(config: DictConfig, choices: Mapping[str, str | None], overrides: list[str]) -> DictConfig:
    """Compose again with the digits that are at hand if others were asked for and cannot be had.

    Where no experiment was chosen the model's recipe for few digits replaces the one for MNIST; what the user set on
    the command line stays.

    Args:
        config: as composed.
        choices: option chosen in each group.
        overrides: the command line.
    """
    data = choices["data"]
    while data in FALLBACK_DATA and config.data.get("_target_") == target_name(DATA[data]):
        if (reason := unavailable(data)) is None:
            break
        data, notice = FALLBACK_DATA[data]
        logger.warning("%s.\n%s\n", reason, notice)
        kept = [override for override in overrides if not override.startswith("data=")]
        recipe = f"{choices['model']}_{data}"
        if choices["experiment"] in (None, "null") and recipe in options("experiment"):
            kept.append(f"experiment={recipe}")
        config = compose("train", overrides=[*kept, f"data={data}"])
    return config


def unavailable(data: str) -> Exception | None:
    """Tell why digits cannot be had; None if they can."""
    try:
        find_mnist() if data == "mnist" else find_binarized_mnist()
    except DatasetUnavailableError as reason:
        return reason
    return None
