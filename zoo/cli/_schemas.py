"""Typed schemas of a run's configuration, and the table of what may be instantiated."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from zoo._constraints import COUNT, NOT_NEGATIVE, POSITIVE, Constraint, optional
from zoo.attention import Captioner, RecurrentAttention
from zoo.attention.captioning import module as captioning
from zoo.attention.captioning.experiment import CaptioningExperiment
from zoo.attention.ram import module as recurrent_attention
from zoo.attention.ram.experiment import RecurrentAttentionExperiment
from zoo.cli._command_line import LENGTH_KEYS
from zoo.cli._options import Option, argument_docs, dataclass_options, format_value, matches_type
from zoo.control.policy_gradient import module as policy_gradient
from zoo.control.policy_gradient.experiment import PolicyGradientExperiment
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.q_learning import _options as q_learning
from zoo.control.q_learning.experiment import DeepQLearningExperiment, TabularQLearningExperiment
from zoo.control.q_learning.module import QLearning
from zoo.data import (
    load_binarized_mnist,
    load_captioned_scenes,
    load_flickr8k,
    load_idx,
    load_image_folder,
    load_karpathy,
    load_mnist,
    load_mnist_5k,
)
from zoo.inference import experiment as program_experiment
from zoo.inference import variational
from zoo.inference.bbvi import ProgramInference
from zoo.inference.experiment import ProgramExperiment
from zoo.inference.sbn import SigmoidBeliefNetwork
from zoo.inference.sbn import module as sigmoid_belief
from zoo.inference.sbn.experiment import BeliefNetworkExperiment

INJECTED_ARGS = {  # arguments that come from other groups or objects, and are no options
    *("data", "env", "env_kwargs", "program", "trust", "estimator", "batch_size", "seed"),
    *("image_shape", "classes", "fill_value", "vocabulary", "image_size"),
    *("observation", "observation_shape", "actions", "num_actions", "reward_threshold", "spaces"),
}
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true", "32", "64")


@dataclass(frozen=True)
class Choice:
    """A model or data set of the configuration.

    ``builder`` is called with the options; ``options_of`` is the class that it passes some of them on to.
    """

    builder: Callable[..., Any]
    options_of: Callable[..., Any]
    constraints: Mapping[str, Constraint] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The ``_target_`` in configurations."""
        return f"{self.builder.__module__}.{self.builder.__qualname__}"

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the builder."""
        return inspect.signature(self.builder).parameters

    @cached_property
    def schema(self) -> type:
        """Dataclass of the options, from the signatures of ``builder`` and ``options_of``."""
        docs = {**argument_docs(self.options_of), **argument_docs(self.builder)}
        options: list[Any] = [("_target_", str, field(default=self.target))]
        for name, parameter in {**inspect.signature(self.options_of).parameters, **self.parameters}.items():
            if name not in INJECTED_ARGS and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                kind = str if parameter.annotation == str | Path else parameter.annotation
                default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
                metadata = {"description": docs.get(name, ""), "allowed": self.constraints.get(name)}
                make = functools.partial(copy.copy, default)
                options.append((name, kind, field(default_factory=make, metadata=metadata)))
        return make_dataclass(f"{self.options_of.__name__} options", options)


_NUM_ENVS = Constraint("a whole number from 1 to 65,536", lambda x: 1 <= x <= 65_536)  # each takes memory
_ACTING = {"num_envs": _NUM_ENVS, "n_eval_episodes": _NUM_ENVS, "eval_freq": COUNT}
_Q_LEARNING = {**_ACTING, "train_freq": NOT_NEGATIVE}
_DATA = {
    "validation": optional(NOT_NEGATIVE),
    "split_seed": Constraint("between 0 and 2**63 - 1", lambda x: x >= 0),
    "size": optional(Constraint("two whole numbers of 1 or more", lambda size: min(size) >= 1)),
}
_PHOTOGRAPHS = {"size": COUNT, "min_count": COUNT}
_SCENES = {
    **dict.fromkeys(("num_train", "num_validation", "num_test"), COUNT),
    "num_captions": Constraint("from 1 to 3", lambda x: 1 <= x <= 3),
    "scene_seed": _DATA["split_seed"],
}
# All that a configuration may instantiate; a ``_target_`` outside these tables is an error.
MODELS = {
    "ram": Choice(RecurrentAttentionExperiment, RecurrentAttention, recurrent_attention.CONSTRAINTS),
    "captioning": Choice(CaptioningExperiment, Captioner, captioning.CONSTRAINTS),
    "policy_gradient": Choice(
        PolicyGradientExperiment,
        PolicyGradient,
        {**policy_gradient.CONSTRAINTS, **_ACTING, "n_steps": optional(NOT_NEGATIVE)},
    ),
    "q_learning": Choice(TabularQLearningExperiment, QLearning, {**q_learning.TABLE_CONSTRAINTS, **_Q_LEARNING}),
    "dqn": Choice(DeepQLearningExperiment, QLearning, {**q_learning.CONSTRAINTS, **_Q_LEARNING}),
    "sbn": Choice(BeliefNetworkExperiment, SigmoidBeliefNetwork, sigmoid_belief.CONSTRAINTS),
    "bbvi": Choice(ProgramExperiment, ProgramInference, {**variational.CONSTRAINTS, **program_experiment.CONSTRAINTS}),
}
DATA = {
    "mnist": Choice(load_mnist, load_mnist, _DATA),
    "mnist_5k": Choice(load_mnist_5k, load_mnist_5k, _DATA),
    "binarized_mnist": Choice(load_binarized_mnist, load_binarized_mnist, _DATA),
    "idx": Choice(load_idx, load_idx, _DATA),
    "image_folder": Choice(load_image_folder, load_image_folder, _DATA),
    "flickr8k": Choice(load_flickr8k, load_flickr8k, _PHOTOGRAPHS),
    "karpathy": Choice(load_karpathy, load_karpathy, _PHOTOGRAPHS),
    "captioned_scenes": Choice(load_captioned_scenes, load_captioned_scenes, _SCENES),
}
_CHOICES = {choice.target: choice for choice in (*MODELS.values(), *DATA.values())}
_SINGLE_PRECISION = Constraint(
    "one of 32-true, 32, bf16-mixed (networks that act in an environment read and compute in single precision)",
    lambda x: x in ("32-true", "32", "bf16-mixed"),
)


def _option(default: Any, constraint: Constraint) -> Any:
    return field(default=default, metadata={"allowed": constraint})


@dataclass
class EstimatorConfig:
    """Options of ``estimator=``.

    Args:
        name: name of the estimator.
        baseline: name of a baseline, or a number for a constant baseline; null for the model's default.
        decay: decay of the moving average and of the running standard deviation.
        scale: whether the signal is divided by its running standard deviation.
    """

    name: str = MISSING
    baseline: str | None = None
    decay: float = _option(0.9, Constraint("between 0 and 1, and below 1", lambda x: 0 <= x < 1))
    scale: bool = False


@dataclass
class TrainerConfig:
    """Options of ``trainer=``.

    Args:
        max_epochs: number of epochs; null where ``model.total_timesteps`` is the length of the training.
        batch_size: batch size of each device.
        gradient_clip: maximal norm of the gradient; null for no clipping.
        accelerator: accelerator of Lightning's trainer: ``auto``, ``cpu``, ``gpu``, ….
        devices: ``auto``, number of devices, or indices such as 0,1 in quotes.
        precision: precision of Lightning's trainer, such as ``32-true`` or ``bf16-mixed``.
    """

    max_epochs: int | None = _option(MISSING, Constraint("at least 1", lambda x: x is None or x >= 1))
    batch_size: int = _option(MISSING, Constraint("at least 1", lambda x: x >= 1))
    gradient_clip: float | None = _option(MISSING, optional(POSITIVE))
    accelerator: str = MISSING
    devices: str = MISSING
    precision: str = _option(
        MISSING,
        Constraint(
            f"one of {', '.join(PRECISIONS)} (half precision scales the loss and skips steps by design: use bf16-mixed "
            "or 32-true)",
            lambda x: x in PRECISIONS,
        ),
    )


@dataclass
class LoggerConfig:
    """Options of ``logger=``, a logger in addition to ``metrics.csv``.

    Args:
        name: the choice of ``logger=``.
        project: name of the logger's project or experiment.
    """

    name: str = MISSING
    project: str = "reinforce-zoo"


@dataclass
class TrainConfig:
    """Configuration of a run.

    Args:
        env: id of the environment in Gymnasium's registry, or ``MODULE:ID`` with ``trust=true``.
        env_kwargs: keyword arguments of the environment, such as ``env_kwargs.is_slippery=false``, and
            ``env_kwargs.max_episode_steps=N``.
        program: probabilistic program: a name, or ``FILE.py:MODEL:GUIDE`` with ``trust=true``.
        seed: seed of all random number generators.
        resume: folder of a run to resume exactly; ``trainer.max_epochs=`` or ``model.total_timesteps=`` beside it
            extend its length.
        init_from: checkpoint of the same model and options whose weights initialize the model.
    """

    model: Any = None
    data: Any = None
    env: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    program: str | None = None
    estimator: EstimatorConfig | None = field(default_factory=EstimatorConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = _option(1, Constraint(f"between 0 and {2**32 - 1}", lambda x: 0 <= x < 2**32))
    resume: str | None = None
    init_from: str | None = None


_REQUIRED = {part.name for part in fields(TrainConfig)} - {"env", "env_kwargs", "program", "init_from"}
GROUPS = ("model", "data", "estimator", "trainer", "logger")
_GROUP_SCHEMAS = {"estimator": EstimatorConfig, "trainer": TrainerConfig, "logger": LoggerConfig}
_NO_OPTIONS = ("logger.name", "estimator.name", "model._target_", "data._target_")  # set by the choice of the group


def known_options(config: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options of a run by key, with the values of its configuration as defaults."""
    found = {key: _with_value(option, key, config) for key, option in dataclass_options(TrainConfig).items()}
    for group in GROUPS:
        del found[group]
        if config.get(group) is not None:
            for option in dataclass_options(_GROUP_SCHEMAS.get(group) or find_choice(config[group]).schema).values():
                key = f"{group}.{option.key}"
                found |= {key: _with_value(option, key, config[group])} if key not in _NO_OPTIONS else {}
    acting = (MODELS["policy_gradient"].target, MODELS["dqn"].target)
    if config.get("trainer") and config.get("model") and config["model"]["_target_"] in acting:
        found["trainer.precision"] = found["trainer.precision"]._replace(allowed=_SINGLE_PRECISION)
    return found


def _with_value(option: Option, key: str, values: Mapping[str, Any]) -> Option:
    return option._replace(key=key, default=values.get(option.key, option.default))


def check_config(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration as strictly as a command line."""
    if missing := sorted(_REQUIRED - config.keys()):
        raise ValueError(f"{', '.join(missing)} missing")
    for group in GROUPS:
        is_absent = config[group] is None and group in ("data", "estimator")
        if not is_absent and not isinstance(config[group], Mapping):
            raise ValueError(f"{group} must hold options, got {format_value(config[group])}")
    lengths = config.get("extended", {})
    known_lengths = isinstance(lengths, Mapping) and lengths.keys() <= set(LENGTH_KEYS)
    if not known_lengths or not all(matches_type(list[int], before) for before in lengths.values()):
        raise ValueError(f"extended must hold lengths by name, got {format_value(lengths)}")
    known = known_options(config)
    settings = {key: value for key, value in config.items() if key not in (*GROUPS, "extended")}
    for group in GROUPS:
        settings |= {f"{group}.{name}": value for name, value in (config[group] or {}).items()}
    for key, value in settings.items():
        if key in known:
            known[key].check(value)
        elif key not in _NO_OPTIONS:
            raise ValueError(f"there is no option {key}")


def find_choice(options: Mapping[str, Any]) -> Choice:
    """Return the model or data set that ``_target_`` names."""
    name = options.get("_target_")
    if not isinstance(name, str) or name not in _CHOICES:
        raise ValueError(f"_target_ {name!r} may not be instantiated; choose a model and data from configs/")
    return _CHOICES[name]


def instantiate(options: Mapping[str, Any], **injected: Any) -> Any:
    """Call the builder that ``_target_`` names with the other options."""
    choice = find_choice(options)
    chosen = {key: value for key, value in options.items() if key != "_target_"}
    if unknown := sorted(chosen.keys() - {option.name for option in fields(choice.schema)}):
        raise ValueError(f"{choice.target} has no option {', '.join(unknown)}")
    return choice.builder(**chosen, **injected)
