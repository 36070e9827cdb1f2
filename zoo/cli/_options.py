"""Options of a command: key, type, default, description, and validation of values."""

import difflib
import inspect
import math
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING

from zoo._constraints import Constraint, is_satisfied

_INT_LIMIT = 2**63  # torch and numpy have integers of 64 bits
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "strings", bool: "true or false"}
_EXAMPLES = {int: "[64,64]", float: "[0.1,0.2]", str: "[a,b]", bool: "[true,false]"}
SYNONYMS: dict[str, tuple[str, ...]] = {  # names in other libraries, or in earlier versions: the names of the options
    "learning_rate": ("lr",),
    "gpus": ("devices",),
    "discount": ("gamma",),
    "trace_decay": ("gae_lambda",),
    "entropy": ("ent_coef",),
    "normalize": ("normalize_advantage",),
    "environments": ("num_envs",),
    "rollout_steps": ("train_freq", "n_steps"),
    "max_env_steps": ("total_timesteps",),
    "env_steps": ("total_timesteps",),
    "evaluate_every": ("eval_freq",),
    "stop_when_solved": ("stop_on_reward_threshold",),
    "replay": ("buffer_size",),
    "warm_up": ("learning_starts",),
    "updates": ("gradient_steps",),
    "target_every": ("target_update_interval",),
    "target_mix": ("tau",),
    "exploration_start": ("exploration_initial",),
    "exploration_end": ("exploration_final",),
    "exploration_shape": ("exploration_schedule",),
    "glimpse_size": ("patch_size",),
    "scales": ("num_scales",),
    "span": ("location_range",),
    "spread": ("spiral_radius",),
    "rollouts": ("num_samples",),
    "gaze": ("location_policy",),
    "stop_tolerance": ("convergence_tolerance",),
    "evaluation_draws": ("num_eval_samples",),
}


class Option(NamedTuple):
    """An option of a command."""

    key: str  # such as model.lr
    annotation: Any
    default: Any = None
    description: str = ""
    allowed: Constraint | None = None  # in addition to the type
    path: bool = False  # ~ is expanded

    @property
    def is_text(self) -> bool:
        return self.annotation in (str, str | None)

    def check(self, value: Any) -> None:
        """Check a value's type and constraint, and that text is not empty."""
        if not matches_type(self.annotation, value):
            raise ValueError(f"{self.key} must be {describe_type(self.annotation)}, got {format_value(value)}")
        if self.is_text and value is not None and not value.strip():
            raise ValueError(f"{self.key} must not be empty; remove it or set a value")
        if self.allowed is not None and not is_satisfied(self.allowed, value):
            raise ValueError(f"{self.key} must be {self.allowed.description}, got {format_value(value)}")


def matches_type(annotation: Any, value: Any) -> bool:
    """Whether a value has a type without conversion; numbers must be finite and fit into 64 bits."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(matches_type(part, value) for part in parts)
    if origin is list or annotation is list:
        return isinstance(value, list | tuple) and all(matches_type(part, x) for x in value for part in parts[:1])
    if origin is tuple:
        same_length = isinstance(value, list | tuple) and len(value) == len(parts)
        return same_length and all(map(matches_type, parts, value))
    if origin is dict or origin is Mapping or annotation is dict:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and -_INT_LIMIT <= value < _INT_LIMIT
    if annotation is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < _INT_LIMIT if isinstance(value, int) else number and math.isfinite(value)
    return isinstance(value, str if annotation is Path else annotation)


def describe_type(annotation: Any) -> str:
    """Return a type in words for messages."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(describe_type(part) for part in parts))
    if origin is list:
        return f"a list of {_PLURALS.get(parts[0], 'values')} such as {_EXAMPLES.get(parts[0], '[...]')}"
    if origin is tuple:
        return f"{len(parts)} {_PLURALS.get(parts[0], 'values')} such as [{','.join(['28'] * len(parts))}]"
    if origin in (dict, Mapping) or annotation is dict:
        return "names with values such as {name: value}"
    return _TYPES.get(annotation, "text" if annotation is Path else "a value")


def format_value(value: Any) -> str:
    """Return a value as it is written on a command line, text in quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(format_value, value))}]"
    return repr(value)


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the known key with the same name in another group, a synonym or a similar spelling; None if none."""
    group, _, name = key.rpartition(".")
    by_name = {found.rpartition(".")[2]: found for found in sorted(known, key=lambda x: x.startswith(f"{group}."))}
    similar = difflib.get_close_matches(name, by_name, n=1, cutoff=0.7)
    return next((by_name[x] for x in (name, *SYNONYMS.get(name, ()), *similar) if x in by_name), None)


def argument_docs(documented: Any) -> dict[str, str]:
    """Return the description of each argument from the ``Args`` section of a docstring; a class inherits its bases'."""
    described: dict[str, str] = {}
    for source in reversed(documented.__mro__) if isinstance(documented, type) else (documented,):
        section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.cleandoc(source.__doc__ or ""), re.MULTILINE)
        entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
        described |= {name: " ".join(text.split()) for name, text in entries}
    return described


def dataclass_options(kind: type) -> dict[str, Option]:
    """Return the fields of a dataclass as options by name.

    A field's ``metadata`` may hold other attributes of its ``Option``; descriptions are otherwise those of ``Args``.
    """
    descriptions = argument_docs(kind)
    options = {}
    for part in fields(kind):
        default = part.default if part.default_factory is NO_DEFAULT else part.default_factory()
        attributes = {"description": descriptions.get(part.name, ""), **part.metadata}
        options[part.name] = Option(part.name, part.type, default, **attributes)
    return options


def option_lines(options: Iterable[Option]) -> str:
    """Return a help text that lists options with default, type and description."""
    lines = []
    for option in options:
        default = "required" if option.default == MISSING else format_value(option.default).strip("'")
        words = [describe_type(option.annotation), *([option.allowed.description] if option.allowed else [])]
        lines.append(f"{option.key}={default}  ({words[-1] if words[-1].startswith(words[0]) else ', '.join(words)})")
        if option.description:
            lines.append(textwrap.fill(option.description, 112, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)
