"""Typed configuration: what may be built, and from which options."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.attention import RecurrentAttention
from zoo.attention.experiment import RecognitionExperiment
from zoo.control.policy_gradient import PolicyGradient
from zoo.control.policy_gradient_experiment import PolicyGradientExperiment
from zoo.control.q_learning import QLearning
from zoo.control.q_learning_experiment import DeepQLearningExperiment, TabularQLearningExperiment
from zoo.data import load_binarized_mnist, load_idx, load_image_folder, load_mnist, load_mnist_5k
from zoo.inference.experiment import ProgramExperiment
from zoo.inference.program_inference import ProgramInference
from zoo.inference.sbn import SigmoidBeliefNetwork
from zoo.inference.sbn.experiment import BeliefNetworkExperiment

# All that a configuration may build. A `_target_` outside of this table is refused.
MODELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "ram": (RecognitionExperiment, RecurrentAttention),
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
HANDED_IN = {  # known from other groups or from what they build, not options
    *("data", "env", "program", "trust", "estimator", "batch_size", "seed"),
    *("image_shape", "classes", "background"),
    *("observation", "observation_shape", "actions", "solved_at"),
}


@dataclass
class EstimatorConfig:
    """``estimator=``: how ``Reinforce`` is made."""

    baseline: str = MISSING
    decay: float = 0.9
    scale: bool = False


@dataclass
class TrainerConfig:
    """``trainer=``: how long, on what, in which steps."""

    max_epochs: int | None = MISSING
    batch_size: int = MISSING
    gradient_clip: float | None = MISSING
    accelerator: str = MISSING
    devices: str = MISSING
    precision: str = MISSING


@dataclass
class LoggerConfig:
    """``logger=``: where figures go beside ``metrics.csv``."""

    name: str = MISSING
    project: str = "reinforce-zoo"


@dataclass
class TrainConfig:
    """All of a run."""

    model: Any = None
    data: Any = None
    env: str | None = None
    program: str | None = None
    trust: bool = False
    estimator: EstimatorConfig | None = field(default_factory=EstimatorConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 1
    resume: str | None = None


PARTS = {part.name for part in fields(TrainConfig)} - {"env", "program", "trust"}  # which older runs lack


@dataclass
class EvaluateConfig:
    """Arguments of ``scripts/evaluate.py``."""

    checkpoint: str = MISSING
    render: str | None = None
    trust: bool = False


@dataclass
class ReproduceConfig:
    """Arguments of ``scripts/reproduce.py``."""

    paper: str = MISSING
    budget: str = "full"
    seeds: list[int] | None = None
    rows: list[str] | None = None


def arguments(kind: type, given: list[str]) -> Any:
    """Read ``key=value`` arguments into a typed configuration.

    Raises:
        ValueError: a key is unknown, a value has the wrong type, or one that is needed is missing.

    Example:
        >>> arguments(EvaluateConfig, ["checkpoint=runs/ram/a/checkpoints/last.ckpt"]).checkpoint
        'runs/ram/a/checkpoints/last.ckpt'
    """
    known = OmegaConf.structured(kind)
    try:
        config = OmegaConf.merge(known, OmegaConf.from_cli(given))
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        raise ValueError(f"{message}; the arguments are {', '.join(f'{key}=...' for key in known)}") from None
    if missing := OmegaConf.missing_keys(config):
        raise ValueError(f"{', '.join(sorted(missing))} must be given: {sorted(missing)[0]}=...")
    return OmegaConf.to_object(config)


def target(builder: Callable[..., Any]) -> str:
    """Name a builder as ``_target_`` does."""
    return f"{builder.__module__}.{builder.__qualname__}"


def schema(builder: Callable[..., Any], options_of: Callable[..., Any]) -> type:
    """Read the names, types and defaults of a builder's options off its signature and that of what it builds."""
    found: list[Any] = [("_target_", str, field(default=target(builder)))]
    parameters = {**inspect.signature(options_of).parameters, **inspect.signature(builder).parameters}
    for name, parameter in parameters.items():
        if name not in HANDED_IN and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            kind = str if parameter.annotation == str | Path else parameter.annotation
            default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            found.append((name, kind, field(default_factory=functools.partial(copy.copy, default))))
    return make_dataclass(f"{options_of.__name__} options", found)


BUILDERS = {
    target(builder): (builder, schema(builder, options_of))
    for builder, options_of in [*MODELS.values(), *((builder, builder) for builder in DATA.values())]
}


def taken(options: Mapping[str, Any]) -> set[str]:
    """Name what the builder that ``_target_`` names has a parameter for.

    Raises:
        ValueError: ``_target_`` is not in the table of what may be built.
    """
    return set(inspect.signature(builder_of(options)[0]).parameters)


def builder_of(options: Mapping[str, Any]) -> tuple[Callable[..., Any], type]:
    """Look up the builder that ``_target_`` names, and the schema of its options."""
    name = options.get("_target_")
    if name not in BUILDERS:
        raise ValueError(f"_target_ {name!r} may not be built; choose a model and data from configs/")
    return BUILDERS[name]


def build(options: Mapping[str, Any], **given: Any) -> Any:
    """Call the builder that ``_target_`` names, with the other options.

    Raises:
        ValueError: ``_target_`` is not in the table of what may be built, or has no such option.
    """
    builder, known = builder_of(options)
    chosen = {key: value for key, value in options.items() if key != "_target_"}
    if unknown := sorted(chosen.keys() - {option.name for option in fields(known)}):
        raise ValueError(f"{target(builder)} has no option {', '.join(unknown)}")
    return builder(**chosen, **given)
