"""Options of a command: key, type, default, description, and validation of values."""

import difflib
import inspect
import math
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
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
SYNONYMS: dict[str, tuple[str, ...]] = {  # names of an option elsewhere or formerly, where the spelling differs a lot
    "lr": ("learning_rate",),
    "max_epochs": ("epochs",),
    "devices": ("gpus",),
    "gradient_clip": ("gradient_clip_val",),
    "gamma": ("discount",),
    "gae_lambda": ("trace_decay",),
    "ent_coef": ("entropy",),
    "normalize_advantage": ("normalize",),
    "value_updates": ("value_steps",),
    "max_grad_norm": ("max_gradient_norm",),
    "num_envs": ("environments", "n_envs"),
    "train_freq": ("rollout_steps",),
    "n_steps": ("rollout_steps", "n_step"),
    "total_timesteps": ("max_env_steps", "env_steps"),
    "eval_freq": ("evaluate_every",),
    "n_eval_episodes": ("evaluation_episodes",),
    "stop_on_reward_threshold": ("stop_when_solved",),
    "buffer_size": ("replay",),
    "learning_starts": ("warm_up",),
    "gradient_steps": ("updates",),
    "target_update_interval": ("target_every",),
    "tau": ("target_mix",),
    "exploration_initial": ("exploration_start", "exploration_initial_eps"),
    "exploration_final": ("exploration_end", "exploration_final_eps"),
    "exploration_schedule": ("exploration_shape",),
    "num_glimpses": ("glimpses",),
    "patch_size": ("glimpse_size",),
    "num_scales": ("scales",),
    "location_range": ("span",),
    "location_hidden": ("locator_hidden",),
    "spiral_radius": ("spread",),
    "num_samples": ("rollouts",),
    "num_particles": ("particles",),
    "convergence_tolerance": ("stop_tolerance",),
    "num_eval_samples": ("evaluation_draws",),
    "location_policy": ("gaze",),
}


class Option(NamedTuple):
    """An option of a command."""

    key: str  # such as model.lr
    annotation: Any
    default: Any = None
    description: str = ""
    allowed: Constraint | None = None  # beside the type
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
    """Return a value as on a command line, text in quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(format_value, value))}]"
    return repr(value)


def find_same_name(key: str, known: Iterable[str]) -> str | None:
    """Return a known key of another group whose name is that of ``key``, or has it as a synonym; None if none."""
    keys, name = list(known), key.rpartition(".")[2]
    for wanted in (name, *(option for option, others in SYNONYMS.items() if name in others)):
        for found in keys:
            if found.rpartition(".")[2] == wanted and found != key:
                return found
    return None


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the most similar known key: same name in another group, synonym, or similar spelling; or None."""
    keys, (group, _, name) = list(known), key.rpartition(".")
    if (same := find_same_name(key, keys)) is not None:
        return same
    names = {found.rpartition(".")[2]: found for found in sorted(keys, key=lambda x: x.startswith(f"{group}."))}
    alike = difflib.get_close_matches(name, list(names), n=1, cutoff=0.7)
    return names[alike[0]] if alike else None


def argument_docs(documented: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each argument from the ``Args`` section of a docstring; a class inherits its bases'."""
    described: dict[str, str] = {}
    for source in reversed(documented.__mro__) if isinstance(documented, type) else (documented,):
        section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.cleandoc(source.__doc__ or ""), re.MULTILINE)
        entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
        described |= {name: " ".join(text.split()) for name, text in entries}
    return described


def dataclass_options(kind: type, prefix: str = "", docs: Mapping[str, str] | None = None) -> dict[str, Option]:
    """Return the fields of a dataclass as options by key."""
    descriptions = argument_docs(kind) if docs is None else docs
    return {
        prefix + part.name: Option(
            prefix + part.name,
            part.type,
            part.default if part.default_factory is NO_DEFAULT else part.default_factory(),
            descriptions.get(part.name, ""),
            path=bool(part.metadata.get("path")),
        )
        for part in fields(kind)
    }


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
