"""``key=value`` arguments of commands other than ``zoo train``, checked against a dataclass."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING

from zoo.cli.command_line import parse_value
from zoo.cli.options import Option, dataclass_options, nearest_key, option_lines

Arguments = TypeVar("Arguments")


def path_field(default: Any = MISSING) -> Any:
    """Declare a field that is a place in the file system, in which ``~`` is the user's home."""
    return field(default=default, metadata={"path": True})


@dataclass
class EvaluateConfig:
    """Arguments of ``zoo evaluate``.

    Args:
        checkpoint: file that a run left in its folder ``checkpoints``.
        render: ``gif`` to film an episode as ``episode.gif``, for models that act in an environment.
        trust: whether code of one's own that the run was trained with, a program or an environment, may be run.
    """

    checkpoint: str = path_field()
    render: str | None = None
    trust: bool = False


@dataclass
class ReproduceConfig:
    """Arguments of ``zoo reproduce``.

    Args:
        paper: table to make.
        budget: ``full``, or ``smoke`` for runs of seconds that show that all works; these are no results.
        seeds: those to run; null for the table's own, of which a smoke run takes the first.
        rows: names of the table's rows to run; null for all.
        publish: write the records into ``docs/results`` and the tables into ``docs/results.md``, over those that the
            project publishes; otherwise all stays in ``runs/``.
    """

    paper: str = MISSING
    budget: str = "full"
    seeds: list[int] | None = None
    rows: list[str] | None = None
    publish: bool = False


def parse_arguments(kind: type[Arguments], given: Sequence[str]) -> Arguments:
    """Read ``key=value`` arguments into a dataclass.

    Raises:
        ValueError: a key is unknown, a value has the wrong type, or one that is needed is missing.

    Example:
        >>> parse_arguments(EvaluateConfig, ["checkpoint=runs/ram/a/checkpoints/last.ckpt"]).checkpoint
        'runs/ram/a/checkpoints/last.ckpt'
    """
    known = dataclass_options(kind)
    listed = f"the arguments are {', '.join(f'{key}=...' for key in known)}"
    values: dict[str, Any] = {}
    for argument in given:
        key, equals, text = argument.partition("=")
        if not equals or key not in known:
            near = nearest_key(key.lstrip("-+~"), known)
            hint = f"; did you mean {near}=...?" if near else ""
            raise ValueError(f"there is no argument {argument if not equals else key}; {listed}{hint}")
        values[key] = read_value(known[key], text, listed)
    if missing := sorted(key for key, option in known.items() if option.default == MISSING and key not in values):
        raise ValueError(f"{', '.join(missing)} must be given: {missing[0]}=...")
    return kind(**values)


def read_value(option: Option, text: str, listed: str) -> Any:
    """Read one value: text letter by letter, all else in Hydra's grammar."""
    value: Any
    if option.is_text:
        value = None if text == "null" and option.default is None else text
        value = str(Path(value).expanduser()) if option.path and value else value
    else:
        value = parse_value(text)
    if option.annotation in (list[str], list[str] | None) and isinstance(value, list):
        value = [str(x) for x in value]
    try:
        option.check(value)
    except ValueError as error:
        raise ValueError(f"{error}; {listed}") from None
    return value


def arguments_help(kind: type, description: str) -> str:
    """Describe a script and its arguments, for ``--help``."""
    return f"{description.strip()}\n\nArguments\n{option_lines(dataclass_options(kind).values())}\n"


def wants_help(given: Sequence[str]) -> bool:
    """Tell whether a command line asks for help."""
    return bool({"-h", "--help"} & set(given))
