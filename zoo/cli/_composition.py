"""Configurations of runs: composed by Hydra from ``configs/`` and a command line, or loaded from a run folder."""

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

from zoo.cli._command_line import FOLDER_KEYS, FREE_FORM_KEYS, LIGHTNING_KEYS, Request
from zoo.cli._config_groups import configs_dir, group_choices, groups, model_of
from zoo.cli._invocation import command_name
from zoo.cli._options import Option, nearest_key
from zoo.cli._schemas import DATA, MODELS, TrainConfig, check_config, find_choice, known_options
from zoo.data import DatasetUnavailableError, find_binarized_mnist, find_mnist

logger = logging.getLogger(__name__)

_MAX_NAME_LENGTH = 80  # of the settings in the name of a run folder
FALLBACK_DATA = {  # data sets that replace unavailable ones, with the warning
    "binarized_mnist": (
        "mnist",
        "Using mnist instead, with dynamic binarization: pixels are sampled anew in each batch. "
        "Bounds on it are not comparable with any on the static binarization.",
    ),
    "mnist": (
        "mnist_5k",
        "Using mnist-5k instead: 5,000 real digits that come with a package. "
        "Errors and bounds on them are not comparable with any on MNIST.",
    ),
}


def register() -> None:
    """Register the schemas and the names of run folders with Hydra."""
    store = ConfigStore.instance()
    store.store("schema", TrainConfig)
    for group, choices in (("model", MODELS), ("data", DATA)):
        for name, choice in choices.items():
            store.store(name, choice.schema, group=f"schema/{group}")
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True, use_cache=True)


def run_folder(resume: str | None, model: str | None, overrides: str) -> str:
    """Return a run's folder: the one to resume, else ``runs/<model>/<time>-<hash of the overrides>``."""
    return resume or _new_folder(model, _short_hash(overrides))


def sweep_folder(resume: str | None, model: str | None, override_dirname: str) -> str:
    """Return the folder of a run in a sweep, named after the settings that differ between the runs."""
    short = re.sub(r"(^|,)[+]*(?:\w+\.)*(\w+)=", r"-\2-", override_dirname).strip("-")
    words = re.sub(r"[^\w.+-]+", "-", short)[:_MAX_NAME_LENGTH].strip("-")
    if words != short or not words:  # otherwise two runs could have the same name
        words = f"{words}-{_short_hash(override_dirname)}".strip("-")
    return resume or _new_folder(model, words)


def _new_folder(model: str | None, name: str) -> str:
    return f"runs/{model}/{time.strftime('%Y-%m-%d_%H-%M-%S')}-{name}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain data: dicts, lists, strings, numbers, booleans and None."""
    if config.model is None:
        raise ValueError(f"choose a model: model={'|'.join(group_choices('model'))}")
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given, such as {missing[0]}=...")
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return resolved


def load_run_config(folder: Path) -> dict[str, Any]:
    """Load the ``config.yaml`` of a run folder without resolving interpolations or running any code."""
    path = folder / "config.yaml"
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        check_config(config)
    except Exception as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}); the run cannot be resumed") from error
    return dict(config)


def compose_config(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the resolved configuration of overrides, as ``zoo train`` composes it."""
    register()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return resolve(compose("train", list(overrides)))


@lru_cache(maxsize=64)
def compose_options(choices: tuple[str, ...]) -> dict[str, Option]:
    """Return the options of a run by key, for choices of configuration groups such as ``model=ram``."""
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", list(choices))
    return known_options(OmegaConf.to_container(config))  # type: ignore[arg-type]


def check_settings(request: Request) -> None:
    """Check the settings of a command line without ``resume=`` against the options of each of its runs."""
    for choices in request.choices():
        chosen = dict(choice.split("=", 1) for choice in choices)
        experiment, model = chosen.get("experiment", "null"), chosen.get("model")
        if experiment != "null" and model not in (None, own := model_of(experiment)):
            raise ValueError(f"experiment={experiment} belongs to model={own}: remove model={model}")
        known = compose_options(choices)
        for setting in request.settings:
            if setting.sign and (setting.key in known or setting.key in groups()):
                raise ValueError(
                    f"options are neither added nor removed: write {setting.key}=VALUE, without {setting.sign}"
                )
            if setting.key in (*groups(), *FOLDER_KEYS, *LIGHTNING_KEYS):
                continue
            if (root := setting.key.partition(".")[0]) in FREE_FORM_KEYS and root in known:
                continue
            if setting.key.endswith("._target_"):
                raise ValueError(
                    f"_target_ {setting.values[0]!r} may not be instantiated; choose a model and data from configs/"
                )
            if setting.key not in known:
                raise ValueError(_unknown_option(setting.key, known, choices))
            option = known[setting.key]
            for value in setting.values:
                is_word = option.is_text and isinstance(value, int | float)  # as in logger.project=2026
                option.check(str(value) if is_word else value)


def _unknown_option(key: str, known: Mapping[str, Option], choices: Sequence[str]) -> str:
    """Return the message for an unknown option, with the most similar one or the choices that have it."""
    if not any(option.startswith("model.") for option in known) and key not in groups():
        return f"there is no option {key} without a model: choose one, model={'|'.join(group_choices('model'))}"
    what = " ".join(choices)
    for group, table in (("model", MODELS), ("data", DATA)):
        name = key.removeprefix(f"{group}.")
        owners = [f"{group}={x}" for x, choice in sorted(table.items()) if name in choice.schema.__annotations__]
        if owners and f"{group}.{name}" not in known:
            return f"{what} has no option {key}; choices with {group}.{name}: {', '.join(owners)}"
    if (near := nearest_key(key, known)) is not None:
        return f"{what} has no option {key}; did you mean {near}?"
    return f"{what} has no option {key}; {command_name('train')} {what} --help lists all options"


def check_estimator_is_used(config: DictConfig, overrides: list[str]) -> None:
    """Raise ``ValueError`` if an estimator was chosen for a model that uses none."""
    asked = [override for override in overrides if override.startswith("estimator=")]
    if asked and config.model is not None and "estimator" not in find_choice(config.model).parameters:
        raise ValueError(f"this model does not use an estimator: remove {asked[0]}")


def replace_unavailable_data(config: DictConfig, choices: Mapping[str, str | None], overrides: list[str]) -> DictConfig:
    """Return the configuration composed with the fallback data set if the chosen one is unavailable.

    If no experiment was chosen, the model's experiment for the fallback data replaces its defaults; the overrides of
    the command line still apply.
    """
    data = choices["data"]
    while data in FALLBACK_DATA and config.data.get("_target_") == DATA[data].target:
        if (reason := _unavailable_reason(data)) is None:
            break
        data, notice = FALLBACK_DATA[data]
        logger.warning("%s.\n%s\n", reason, notice)
        kept = [override for override in overrides if not override.startswith("data=")]
        experiment = f"{choices['model']}_{data}"
        if choices["experiment"] in (None, "null") and experiment in group_choices("experiment"):
            kept.append(f"experiment={experiment}")
        config = compose("train", overrides=[*kept, f"data={data}"])
    return config


def _unavailable_reason(data: str) -> Exception | None:
    try:
        find_mnist() if data == "mnist" else find_binarized_mnist()
    except DatasetUnavailableError as reason:
        return reason
    return None
