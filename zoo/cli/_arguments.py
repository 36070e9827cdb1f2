"""``key=value`` arguments of commands other than ``zoo train``, checked against a dataclass."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING

from zoo.cli._command_line import parse_value
from zoo.cli._options import Option, dataclass_options, nearest_key, option_lines

Arguments = TypeVar("Arguments")


def path_field(default: Any = MISSING) -> Any:
    """Return a dataclass field for a path, in which ``~`` is expanded.

    Example:
        >>> path_field("data").default
        'data'
    """
    return field(default=default, metadata={"path": True})


@dataclass
class EvaluateConfig:
    """Arguments of ``zoo evaluate``.

    Args:
        checkpoint: checkpoint file of a run.
        render: ``gif`` to render an episode as ``episode.gif``, for models that act in an environment.
        trust: whether code of the user, a program or an environment, may be run.
    """

    checkpoint: str = path_field()
    render: str | None = None
    trust: bool = False


@dataclass
class ReproduceConfig:
    """Arguments of ``zoo reproduce``.

    Args:
        paper: name of the table: ``ram``, ``captioning``, ``nvil``, ``bbvi``, ``cartpole``, ``tabular``, ``dqn`` or
            ``minatar``.
        budget: ``full``, or ``smoke`` for runs of a few seconds, which only test that everything works.
        seeds: seeds of the runs; null for the table's seeds (a smoke run uses the first).
        rows: names of the rows; null for all.
        publish: write records to ``docs/results`` and tables to ``docs/results.md`` of the checkout instead of
            ``runs/``.
    """

    paper: str = MISSING
    budget: str = "full"
    seeds: list[int] | None = None
    rows: list[str] | None = None
    publish: bool = False


def parse_arguments(schema: type[Arguments], arguments: Sequence[str]) -> Arguments:
    """Parse ``key=value`` arguments into a dataclass.

    Raises:
        ValueError: a key is unknown, a value has a wrong type, or a required one is missing.

    Example:
        >>> parse_arguments(EvaluateConfig, ["checkpoint=runs/ram/a/checkpoints/last.ckpt"]).checkpoint
        'runs/ram/a/checkpoints/last.ckpt'
    """
    known = dataclass_options(schema)
    listed = f"the arguments are {', '.join(f'{key}=...' for key in known)}"
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or key not in known:
            near = nearest_key(key.lstrip("-+~"), known)
            hint = f"; did you mean {near}=...?" if near else ""
            raise ValueError(f"there is no argument {argument if not equals else key}; {listed}{hint}")
        values[key] = _read_value(known[key], text, listed)
    if missing := sorted(key for key, option in known.items() if option.default == MISSING and key not in values):
        meaning = known[missing[0]].description.replace("``", "").rstrip(".")
        raise ValueError(f"{', '.join(missing)} must be given: {missing[0]}=...{meaning and f' ({meaning})'}")
    return schema(**values)


def _read_value(option: Option, text: str, listed: str) -> Any:
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


def arguments_help(schema: type, description: str) -> str:
    """Return a help text for a command and its arguments, from a dataclass and its ``Args`` section.

    Example:
        >>> print(arguments_help(EvaluateConfig, "Evaluate a checkpoint.").splitlines()[3])
        checkpoint=required  (text)
    """
    return f"{description.strip()}\n\nArguments\n{option_lines(dataclass_options(schema).values())}\n"


def wants_help(arguments: Sequence[str]) -> bool:
    """Return whether the arguments ask for help.

    Example:
        >>> wants_help(["seed=1", "--help"])
        True
    """
    return bool({"-h", "--help"} & set(arguments))
