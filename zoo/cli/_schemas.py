"""Typed schemas of a run's configuration, and the table of what may be instantiated."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from zoo._constraints import COUNT, NOT_NEGATIVE, POSITIVE, Constraint, optional
from zoo.attention import RecurrentAttention
from zoo.attention.ram import module as recurrent_attention
from zoo.attention.ram.experiment import RecurrentAttentionExperiment
from zoo.cli._command_line import BUDGETS
from zoo.cli._options import Option, argument_docs, dataclass_options, format_value, matches_type
from zoo.control.policy_gradient import module as policy_gradient
from zoo.control.policy_gradient.experiment import PolicyGradientExperiment
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.q_learning import _options as q_learning_options
from zoo.control.q_learning.experiment import DeepQLearningExperiment, TabularQLearningExperiment
from zoo.control.q_learning.module import QLearning
from zoo.data import load_binarized_mnist, load_idx, load_image_folder, load_mnist, load_mnist_5k
from zoo.inference import experiment as program_experiment
from zoo.inference import variational
from zoo.inference.bbvi import ProgramInference
from zoo.inference.experiment import ProgramExperiment
from zoo.inference.sbn import SigmoidBeliefNetwork
from zoo.inference.sbn import module as sigmoid_belief
from zoo.inference.sbn.experiment import BeliefNetworkExperiment

# All that a configuration may instantiate; a `_target_` outside these tables is an error. Each model has an
# experiment, and a class whose options the experiment passes on.
MODELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "ram": (RecurrentAttentionExperiment, RecurrentAttention),
    "policy_gradient": (PolicyGradientExperiment, PolicyGradient),
    "q_learning": (TabularQLearningExperiment, QLearning),
    "dqn": (DeepQLearningExperiment, QLearning),
    "sbn": (BeliefNetworkExperiment, SigmoidBeliefNetwork),
    "bbvi": (ProgramExperiment, ProgramInference),
}
DATA: dict[str, Callable[..., Any]] = {
    "mnist": load_mnist,
    "mnist_5k": load_mnist_5k,
    "binarized_mnist": load_binarized_mnist,
    "idx": load_idx,
    "image_folder": load_image_folder,
}
INJECTED_ARGS = {  # arguments that come from other groups or objects, and are no options
    *("data", "env", "env_kwargs", "program", "trust", "estimator", "batch_size", "seed"),
    *("image_shape", "classes", "fill_value"),
    *("observation", "observation_shape", "actions", "num_actions", "reward_threshold", "spaces"),
}


@dataclass
class EstimatorConfig:
    """Options of ``estimator=``.

    Args:
        name: name of the estimator.
        baseline: name of a baseline, or a number for one that never changes; null for the model's default.
        decay: decay of a moving average, and of the running standard deviation.
        scale: whether the signal is divided by its running standard deviation.
    """

    name: str = MISSING
    baseline: str | None = None
    decay: float = 0.9
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

    max_epochs: int | None = MISSING
    batch_size: int = MISSING
    gradient_clip: float | None = MISSING
    accelerator: str = MISSING
    devices: str = MISSING
    precision: str = MISSING


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
    seed: int = 1
    resume: str | None = None
    init_from: str | None = None


_REQUIRED = {part.name for part in fields(TrainConfig)} - {"env", "env_kwargs", "program", "init_from"}
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true", "32", "64")
GROUPS = ("model", "data", "estimator", "trainer", "logger")
_NAMES = ("logger.name", "estimator.name")  # set by the choice of the group
_NO_OPTIONS = (*GROUPS, "trust", "extended")  # further keys that a run's config.yaml may hold
CONSTRAINTS: dict[str, Mapping[str, Constraint]] = {  # by group
    "": {"seed": Constraint(f"between 0 and {2**32 - 1}", lambda x: 0 <= x < 2**32)},
    "trainer": {
        "max_epochs": Constraint("at least 1", lambda x: x is None or x >= 1),
        "batch_size": Constraint("at least 1", lambda x: x >= 1),
        "gradient_clip": optional(POSITIVE),
        "precision": Constraint(
            f"one of {', '.join(PRECISIONS)} (half precision scales the loss and skips steps by design: use bf16-mixed "
            "or 32-true)",
            lambda x: x in PRECISIONS,
        ),
    },
    "estimator": {"decay": Constraint("between 0 and 1, and below 1", lambda x: 0 <= x < 1)},
    "data": {
        "validation": optional(NOT_NEGATIVE),
        "split_seed": Constraint("between 0 and 2**63 - 1", lambda x: x >= 0),
        "size": optional(Constraint("two whole numbers of 1 or more", lambda size: min(size) >= 1)),
    },
}


def target_name(builder: Callable[..., Any]) -> str:
    """Return the ``_target_`` of a builder."""
    return f"{builder.__module__}.{builder.__qualname__}"


def schema(builder: Callable[..., Any], options_of: Callable[..., Any]) -> type:
    """Return a dataclass of a builder's options, from its signature and that of the class it passes them on to."""
    found: list[Any] = [("_target_", str, field(default=target_name(builder)))]
    parameters = {**inspect.signature(options_of).parameters, **inspect.signature(builder).parameters}
    for name, parameter in parameters.items():
        if name not in INJECTED_ARGS and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            kind = str if parameter.annotation == str | Path else parameter.annotation
            default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            found.append((name, kind, field(default_factory=functools.partial(copy.copy, default))))
    return make_dataclass(f"{options_of.__name__} options", found)


_PAIRS = [*MODELS.values(), *((builder, builder) for builder in DATA.values())]
BUILDERS = {target_name(builder): (builder, schema(builder, options_of)) for builder, options_of in _PAIRS}
_DESCRIPTIONS = {
    target_name(builder): {**argument_docs(options_of), **argument_docs(builder)} for builder, options_of in _PAIRS
}
_NUM_ENVS = Constraint("a whole number from 1 to 65,536", lambda x: 1 <= x <= 65_536)  # each takes memory
_STEPS = {"num_envs": _NUM_ENVS, "n_eval_episodes": _NUM_ENVS, "eval_freq": COUNT}
_MODEL_CONSTRAINTS: dict[str, Mapping[str, Constraint]] = {
    target_name(MODELS[name][0]): constraints
    for name, constraints in {
        "ram": recurrent_attention.CONSTRAINTS,
        "policy_gradient": {**policy_gradient.CONSTRAINTS, **_STEPS, "n_steps": optional(NOT_NEGATIVE)},
        "q_learning": {**q_learning_options.TABLE_CONSTRAINTS, **_STEPS, "train_freq": NOT_NEGATIVE},
        "dqn": {**q_learning_options.CONSTRAINTS, **_STEPS, "train_freq": NOT_NEGATIVE},
        "sbn": sigmoid_belief.CONSTRAINTS,
        "bbvi": {**variational.CONSTRAINTS, **program_experiment.CONSTRAINTS},
    }.items()
}

_SINGLE = {target_name(MODELS[name][0]) for name in ("policy_gradient", "dqn")}
_SINGLE_PRECISION = Constraint(
    "one of 32-true, 32, bf16-mixed (networks that act in an environment read and compute in single precision)",
    lambda x: x in ("32-true", "32", "bf16-mixed"),
)


def known_options(config: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options of a run by key, with the values of its configuration as defaults."""
    found = {key: option for key, option in dataclass_options(TrainConfig).items() if key not in GROUPS}
    for group, kind in (("estimator", EstimatorConfig), ("trainer", TrainerConfig), ("logger", LoggerConfig)):
        if config.get(group) is not None:
            found |= dataclass_options(kind, f"{group}.")
    for group in ("model", "data"):
        if config.get(group) is not None:
            builder, known = _builder(config[group])
            found |= dataclass_options(known, f"{group}.", _DESCRIPTIONS[target_name(builder)])
    return {
        key: option._replace(default=get_nested(config, key, option.default), allowed=_constraint(key, config))
        for key, option in found.items()
        if not key.endswith("._target_") and key not in _NAMES
    }


def option_names(group: str, name: str) -> list[str]:
    """Return the keys of the options of a choice of ``model`` or ``data``."""
    builder = MODELS[name][0] if group == "model" else DATA[name]
    _, options = BUILDERS[target_name(builder)]
    return [f"{group}.{option.name}" for option in fields(options) if option.name != "_target_"]


def get_nested(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """Return the value of nested mappings at a key with dots, or a default."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def _constraint(key: str, config: Mapping[str, Any]) -> Constraint | None:
    group, _, name = key.rpartition(".")
    if key == "trainer.precision" and config.get("model") and config["model"]["_target_"] in _SINGLE:
        return _SINGLE_PRECISION
    constraints = _MODEL_CONSTRAINTS[config["model"]["_target_"]] if group == "model" else CONSTRAINTS.get(group, {})
    return constraints.get(name)


def check_config(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration as strictly as a command line."""
    if missing := sorted(_REQUIRED - config.keys()):
        raise ValueError(f"{', '.join(missing)} must be there")
    for group in GROUPS:
        is_absent = config[group] is None and group in ("data", "estimator")
        if not is_absent and not isinstance(config[group], Mapping):
            raise ValueError(f"{group} must hold options, got {format_value(config[group])}")
    lengths = config.get("extended", {})
    known_lengths = isinstance(lengths, Mapping) and lengths.keys() <= set(BUDGETS)
    if not known_lengths or not all(matches_type(list[int], before) for before in lengths.values()):
        raise ValueError(f"extended must hold lengths by name, got {format_value(lengths)}")
    known = known_options(config)
    for key, value in _flatten(config):
        if key in known:
            known[key].check(value)
        elif not key.endswith("._target_") and key not in (*_NAMES, *_NO_OPTIONS):
            raise ValueError(f"there is no option {key}")


def _flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and key in GROUPS:
            yield from ((f"{key}.{name}", x) for name, x in value.items())
        else:
            yield str(key), value


def accepted_parameters(options: Mapping[str, Any]) -> set[str]:
    """Return the names of the parameters of the builder that ``_target_`` names."""
    return set(inspect.signature(_builder(options)[0]).parameters)


def _builder(options: Mapping[str, Any]) -> tuple[Callable[..., Any], type]:
    name = options.get("_target_")
    if not isinstance(name, str) or name not in BUILDERS:
        raise ValueError(f"_target_ {name!r} may not be instantiated; choose a model and data from configs/")
    return BUILDERS[name]


def instantiate(options: Mapping[str, Any], **injected: Any) -> Any:
    """Call the builder that ``_target_`` names with the other options."""
    builder, known = _builder(options)
    chosen = {key: value for key, value in options.items() if key != "_target_"}
    if unknown := sorted(chosen.keys() - {option.name for option in fields(known)}):
        raise ValueError(f"{target_name(builder)} has no option {', '.join(unknown)}")
    return builder(**chosen, **injected)
