"""Typed configuration: what may be built, and from which options."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from zoo.attention import RecurrentAttention
from zoo.attention.ram import module as recurrent_attention
from zoo.attention.ram.experiment import RecurrentAttentionExperiment
from zoo.cli.command_line import LENGTHS
from zoo.cli.options import Option, argument_docs, dataclass_options, format_value, matches_type
from zoo.constraints import COUNT, NOT_NEGATIVE, POSITIVE, Constraint, optional
from zoo.control.policy_gradient import module as policy_gradient
from zoo.control.policy_gradient.experiment import PolicyGradientExperiment
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.q_learning import options as q_learning_options
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

# All that a configuration may build. A `_target_` outside of this table is refused.
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
INJECTED_ARGS = {  # known from other groups or from what they build, not options
    *("data", "env", "env_kwargs", "program", "trust", "estimator", "batch_size", "seed"),
    *("image_shape", "classes", "fill_value"),
    *("observation", "observation_shape", "actions", "num_actions", "reward_threshold", "spaces"),
}


@dataclass
class EstimatorConfig:
    """``estimator=``: how ``Reinforce`` is made.

    Args:
        baseline: name of a baseline, or a number for one that never changes.
        decay: weight of the past in a moving average.
        scale: whether signals are divided by a running standard deviation.
    """

    baseline: str = MISSING
    decay: float = 0.9
    scale: bool = False


@dataclass
class TrainerConfig:
    """``trainer=``: how long, on what, in which steps.

    Args:
        max_epochs: passes over the training data, of which a model that acts in an environment counts its own.
        batch_size: examples a step, on each device.
        gradient_clip: norm to which the whole gradient is clipped; null to leave it.
        accelerator: ``auto``, ``cpu``, ``gpu`` and the like, as Lightning names them.
        devices: ``auto``, a number of them, or indices such as 0,1 in quotes.
        precision: of the computation; see Lightning. ``bf16-mixed`` and ``32-true`` are usual.
    """

    max_epochs: int | None = MISSING
    batch_size: int = MISSING
    gradient_clip: float | None = MISSING
    accelerator: str = MISSING
    devices: str = MISSING
    precision: str = MISSING


@dataclass
class LoggerConfig:
    """``logger=``: where figures go beside ``metrics.csv``.

    Args:
        name: chosen by ``logger=``.
        project: name of the project or experiment there.
    """

    name: str = MISSING
    project: str = "reinforce-zoo"


@dataclass
class TrainConfig:
    """All of a run.

    Args:
        env: environment to act in, by its id in Gymnasium's registry; or ``MODULE:ID`` with ``trust=true``.
        env_kwargs: keyword arguments of the environment, such as ``env_kwargs.is_slippery=false``, and
            ``env_kwargs.max_episode_steps=N``.
        program: program whose posterior is sought: a name, or ``FILE.py:MODEL:GUIDE`` with ``trust=true``.
        seed: of all random numbers.
        resume: folder of a stopped run to go on with, exactly where it was saved; with ``trainer.max_epochs=`` or
            ``model.total_timesteps=`` for longer than it was to last.
        init_from: checkpoint of the same kind of model whose weights training begins with.
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


PARTS = {part.name for part in fields(TrainConfig)} - {"env", "env_kwargs", "program", "init_from"}  # not in older runs
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true", "32", "64")
GROUPS = ("model", "data", "estimator", "trainer", "logger")
UNUSED = (*GROUPS, "trust", "extended")  # keys that are no options: groups left empty, and what runs keep
CONSTRAINTS: dict[str, Mapping[str, Constraint]] = {  # what numbers may be, by the key before the option's name
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
    """Name a builder as ``_target_`` does."""
    return f"{builder.__module__}.{builder.__qualname__}"


def schema(builder: Callable[..., Any], options_of: Callable[..., Any]) -> type:
    """Read the names, types and defaults of a builder's options off its signature and that of what it builds."""
    found: list[Any] = [("_target_", str, field(default=target_name(builder)))]
    parameters = {**inspect.signature(options_of).parameters, **inspect.signature(builder).parameters}
    for name, parameter in parameters.items():
        if name not in INJECTED_ARGS and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            kind = str if parameter.annotation == str | Path else parameter.annotation
            default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            found.append((name, kind, field(default_factory=functools.partial(copy.copy, default))))
    return make_dataclass(f"{options_of.__name__} options", found)


BUILDERS = {
    target_name(builder): (builder, schema(builder, options_of))
    for builder, options_of in [*MODELS.values(), *((builder, builder) for builder in DATA.values())]
}


DOCUMENTED = {  # what the options of each builder mean
    target_name(builder): {**argument_docs(options_of), **argument_docs(builder)}
    for builder, options_of in [*MODELS.values(), *((builder, builder) for builder in DATA.values())]
}
MANY = Constraint("a whole number from 1 to 65,536", lambda x: 1 <= x <= 65_536)  # each is an environment in memory
STEPS = {"num_envs": MANY, "n_eval_episodes": MANY, "eval_freq": COUNT}
MODEL_CONSTRAINTS: dict[str, Mapping[str, Constraint]] = {
    target_name(MODELS[name][0]): constraints
    for name, constraints in {
        "ram": recurrent_attention.CONSTRAINTS,
        "policy_gradient": {**policy_gradient.CONSTRAINTS, **STEPS, "n_steps": optional(NOT_NEGATIVE)},
        "q_learning": {**q_learning_options.TABLE_CONSTRAINTS, **STEPS, "train_freq": NOT_NEGATIVE},
        "dqn": {**q_learning_options.CONSTRAINTS, **STEPS, "train_freq": NOT_NEGATIVE},
        "sbn": sigmoid_belief.CONSTRAINTS,
        "bbvi": {**variational.CONSTRAINTS, **program_experiment.CONSTRAINTS},
    }.items()
}


SINGLE = {target_name(MODELS[name][0]) for name in ("policy_gradient", "dqn")}
SINGLE_PRECISION = Constraint(
    "one of 32-true, 32, bf16-mixed (networks that act in an environment read and compute in single precision)",
    lambda x: x in ("32-true", "32", "bf16-mixed"),
)


def known_options(config: Mapping[str, Any]) -> dict[str, Option]:
    """Return all that can be set in a run, by key, from the schemas of the parts that were chosen for it.

    Args:
        config: of a run, plain data; its values are the defaults.

    Raises:
        ValueError: a ``_target_`` is not in the table of what may be built.
    """
    found = {key: option for key, option in dataclass_options(TrainConfig).items() if key not in GROUPS}
    for group, kind in (("estimator", EstimatorConfig), ("trainer", TrainerConfig), ("logger", LoggerConfig)):
        if config.get(group) is not None:
            found |= dataclass_options(kind, f"{group}.")
    for group in ("model", "data"):
        if config.get(group) is not None:
            builder, known = builder_of(config[group])
            found |= dataclass_options(known, f"{group}.", DOCUMENTED[target_name(builder)])
    return {
        key: option._replace(default=get_nested(config, key, option.default), allowed=allowed(key, config))
        for key, option in found.items()
        if not key.endswith("._target_") and key != "logger.name"
    }


def option_names(group: str, name: str) -> list[str]:
    """Return the keys of the options that a choice of ``model`` or ``data`` brings.

    Example:
        >>> option_names("data", "mnist")
        ['data.validation', 'data.split_seed']
    """
    builder = MODELS[name][0] if group == "model" else DATA[name]
    _, options = BUILDERS[target_name(builder)]
    return [f"{group}.{option.name}" for option in fields(options) if option.name != "_target_"]


def get_nested(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """Return what a nest of mappings holds at a key with dots, or a default."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def allowed(key: str, config: Mapping[str, Any]) -> Constraint | None:
    """Return what the value of an option may be beside its type."""
    group, _, name = key.rpartition(".")
    if key == "trainer.precision" and config.get("model") and config["model"]["_target_"] in SINGLE:
        return SINGLE_PRECISION
    constraints = MODEL_CONSTRAINTS[config["model"]["_target_"]] if group == "model" else CONSTRAINTS.get(group, {})
    return constraints.get(name)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that no command line could have asked for.

    Args:
        config: of a run, plain data.

    Raises:
        ValueError: a part is missing, an option is unknown, or a value is of another type or out of its range.
    """
    if missing := sorted(PARTS - config.keys()):
        raise ValueError(f"{', '.join(missing)} must be there")
    for group in ("model", "trainer", "logger"):
        if not isinstance(config[group], Mapping):
            raise ValueError(f"{group} must hold options, got {format_value(config[group])}")
    for group in ("data", "estimator"):
        if config[group] is not None and not isinstance(config[group], Mapping):
            raise ValueError(f"{group} must hold options, got {format_value(config[group])}")
    check_extended(config.get("extended", {}))
    known = known_options(config)
    for key, value in flatten(config):
        if key in known:
            known[key].check(value)
        elif not key.endswith("._target_") and key not in ("logger.name", *UNUSED):
            raise ValueError(f"there is no option {key}")


def check_extended(lengths: Any) -> None:
    """Refuse a list of the lengths that a run had before which no run has left.

    Raises:
        ValueError: it is one.
    """
    known = isinstance(lengths, Mapping) and lengths.keys() <= set(LENGTHS)
    if not known or not all(matches_type(list[int], before) for before in lengths.values()):
        raise ValueError(f"extended must hold lengths by name, got {format_value(lengths)}")


def flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the keys of all options in a configuration, with their values."""
    for key, value in config.items():
        if isinstance(value, Mapping) and key in GROUPS:
            yield from ((f"{key}.{name}", x) for name, x in value.items())
        else:
            yield str(key), value


def accepted_parameters(options: Mapping[str, Any]) -> set[str]:
    """Name what the builder that ``_target_`` names has a parameter for.

    Raises:
        ValueError: ``_target_`` is not in the table of what may be built.
    """
    return set(inspect.signature(builder_of(options)[0]).parameters)


def builder_of(options: Mapping[str, Any]) -> tuple[Callable[..., Any], type]:
    """Look up the builder that ``_target_`` names, and the schema of its options."""
    name = options.get("_target_")
    if not isinstance(name, str) or name not in BUILDERS:
        raise ValueError(f"_target_ {name!r} may not be built; choose a model and data from configs/")
    return BUILDERS[name]


def instantiate(options: Mapping[str, Any], **given: Any) -> Any:
    """Call the builder that ``_target_`` names, with the other options.

    Raises:
        ValueError: ``_target_`` is not in the table of what may be built, or has no such option.
    """
    builder, known = builder_of(options)
    chosen = {key: value for key, value in options.items() if key != "_target_"}
    if unknown := sorted(chosen.keys() - {option.name for option in fields(known)}):
        raise ValueError(f"{target_name(builder)} has no option {', '.join(unknown)}")
    return builder(**chosen, **given)
