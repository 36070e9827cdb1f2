"""Parser of the command line of ``zoo train``; it checks arguments before Hydra composes a configuration."""

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException

from zoo.cli._config_groups import check_choice, group_choices, groups, suggest_nearest
from zoo.cli._invocation import command_name
from zoo.cli._options import Option

LIGHTNING_KEYS = ("hydra.job.name", "hydra.output_subdir")  # set by Lightning in the processes that it starts
LENGTH_KEYS = ("trainer.max_epochs", "model.total_timesteps")
PATH_KEYS = ("resume", "init_from", "program", "data.root")
FOLDER_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
FREE_FORM_KEYS = ("env_kwargs",)  # options with entries of any name
_VERBATIM_KEYS = (*PATH_KEYS, *FOLDER_KEYS)
_MAX_RUNS = 1000


class Setting(NamedTuple):
    """One ``key=value`` of the command line."""

    key: str
    values: list[Any]  # several in a sweep
    override: str  # the same setting in Hydra's grammar
    sign: str = ""  # Hydra's prefix +, ++ or ~; refused later, with a suggestion of the nearest option

    @property
    def swept(self) -> bool:
        return len(self.values) > 1


class Request(NamedTuple):
    """A parsed command line of ``zoo train``."""

    settings: list[Setting]
    flags: list[str]  # of Hydra, such as -m
    trust: bool  # whether code of the user may be run; never stored
    help: bool

    @property
    def sweep(self) -> bool:
        return bool({"-m", "--multirun"} & set(self.flags))

    @property
    def completion(self) -> bool:
        return bool({"-sc", "--shell-completion"} & set(self.flags))

    @property
    def runs(self) -> int:
        return math.prod(len(setting.values) for setting in self.settings)

    def value(self, key: str) -> Any:
        """Return the first value of a key, None if it is not set."""
        return next((setting.values[0] for setting in self.settings if setting.key == key), None)

    def choices(self) -> Iterator[tuple[str, ...]]:
        """Return the choices of configuration groups for each run, such as ``("model=ram",)``."""
        chosen = [setting for setting in self.settings if setting.key in groups() and not setting.sign]
        return itertools.product(*([f"{x.key}={to_hydra(value)}" for value in x.values] for x in chosen))

    def arguments(self) -> list[str]:
        """Return the arguments for Hydra."""
        kept = [x for x in self.settings if x.key not in LENGTH_KEYS or self.value("resume") is None]
        return [*self.flags, *(setting.override for setting in kept)]

    def single_runs(self) -> Iterator[tuple["Request", dict[str, str]]]:
        """Return a request for each run of a sweep, and the settings that differ between runs."""
        flags = [flag for flag in self.flags if flag not in ("-m", "--multirun")]
        for values in itertools.product(*(setting.values for setting in self.settings)):
            settings = [_make_setting(x.key, value) for x, value in zip(self.settings, values, strict=True)]
            swept = {x.key: to_hydra(value) for x, value in zip(self.settings, values, strict=True) if x.swept}
            yield self._replace(settings=settings, flags=flags), swept


class _FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {command_name('train')} --help")


def _flag_parser() -> argparse.ArgumentParser:
    parser = _FlagParser(add_help=False, allow_abbrev=False)
    for names in (("-m", "--multirun"), ("-h", "--help"), ("-r", "--resolve"), ("--hydra-help",), ("--version",)):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("-sc", "--shell-completion", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all")
    return parser


def read_command_line(arguments: Sequence[str]) -> Request:
    """Parse and check a command line, without slow imports."""
    flags, rest = _flag_parser().parse_known_args(list(arguments))
    hydra_flags = [argument for argument in arguments if argument not in rest]
    if len(rest) > 1 and rest[0].startswith("--") and "=" not in "".join(rest[:2]):
        rest[:2] = ["=".join(rest[:2])]  # --model ram
    if flags.shell_completion:
        return Request([Setting(x, [], x) for x in rest], hydra_flags, trust=False, help=False)
    settings: dict[str, Setting] = {}
    for argument in rest:
        setting = _read_setting(argument, flags.multirun)
        settings.pop(setting.key, None)  # the last value of a key counts
        settings[setting.key] = setting
    trust = settings.pop("trust", Setting("trust", [False], ""))
    if trust.values not in ([True], [False]) or trust.sign:
        raise ValueError("trust must be true or false")
    request = Request(list(settings.values()), hydra_flags, trust.values == [True], flags.help)
    if request.runs > _MAX_RUNS:
        raise ValueError(
            f"the sweep has {request.runs:,} runs, and at most {_MAX_RUNS:,} are allowed: name fewer values"
        )
    for run in next((x.values for x in request.settings if x.key == "resume"), []):
        if run is not None:
            _check_resumable(run, request)
    return request


def _check_resumable(run: str, request: Request) -> None:
    if not Path(run, "config.yaml").is_file():
        folder = run or "the empty name"
        raise FileNotFoundError(f"{folder} holds no run to resume: there is no config.yaml in it")
    others = [x.key for x in request.settings if x.key not in ("resume", *LENGTH_KEYS, *FOLDER_KEYS, *LIGHTNING_KEYS)]
    if others:
        raise ValueError(
            "a run is resumed with its own configuration: with resume=RUN only "
            f"{' or '.join(f'{key}=...' for key in LENGTH_KEYS)} can be set, to train longer; got {', '.join(others)}"
        )
    for setting in request.settings:
        for value in setting.values if setting.key in LENGTH_KEYS else []:
            Option(setting.key, int).check(value)
        if setting.key in LENGTH_KEYS and setting.swept:
            raise ValueError(f"{setting.key} cannot be swept with resume=; set a single value")


def _read_setting(argument: str, sweep: bool) -> Setting:
    key, equals, text = argument.partition("=")
    bare = key.lstrip("+~-")
    sign = key.removesuffix(bare)
    if "-" in sign or (not equals and "~" not in sign):
        raise ValueError(f"{argument} is not key=value{_suggest_setting(bare, text)}")
    if bare.startswith("hydra") and bare not in (*FOLDER_KEYS, *LIGHTNING_KEYS):
        raise ValueError(f"{bare} cannot be set; of Hydra's own settings only {', '.join(FOLDER_KEYS)} can")
    if bare == "hydra.run.dir" and sweep:
        raise ValueError(
            "hydra.run.dir is the folder of one run; in a sweep set hydra.sweep.dir, the folder of all runs"
        )
    values, override = _read_values(bare, text, sweep)
    if bare in FOLDER_KEYS and not text.strip():
        raise ValueError(f"{bare} must not be empty; remove it or set a folder")
    if bare in groups() and equals:
        for value in values:
            check_choice(bare, value)
    root, _, name = bare.partition(".")
    if (
        root in FREE_FORM_KEYS
        and equals
        and not (name.isidentifier() or (bare == root and isinstance(values[0], dict)))
    ):
        raise ValueError(f"{bare}={text}: set each argument by name, {root}.NAME=VALUE")
    return Setting(bare, values, _add_prefix(bare, override), sign)


def _make_setting(key: str, value: Any) -> Setting:
    return Setting(key, [value], _add_prefix(key, f"{key}={to_hydra(value)}"))


def _add_prefix(key: str, override: str) -> str:
    # Hydra's prefix for keys that the configuration may not contain yet.
    return f"++{override}" if key.partition(".")[0] in FREE_FORM_KEYS else override


def _suggest_setting(name: str, text: str) -> str:
    for group in ("model", "experiment", "data", "estimator", "logger"):
        if name == group:
            return f"; write {group}={text or 'NAME'}"
        if name in group_choices(group):
            return f"; did you mean {group}={name}?"
    return f"; write {name}={text or 'VALUE'}" + (f".{near}" if (near := suggest_nearest(name, groups())) else "")


def _read_values(key: str, text: str, sweep: bool) -> tuple[list[Any], str]:
    """Return the values of a setting, and the setting in Hydra's grammar.

    Hydra's grammar does not allow ``=``, ``~`` or ``ü`` in an unquoted value, so paths are quoted here.
    """
    try:
        parsed = OverridesParser.create().parse_override(f"key={text}")
        value: Any = parsed.value()
    except HydraException:
        if key not in _VERBATIM_KEYS and ("(" in text or text[:1] in tuple("[{'\"")):
            raise ValueError(f"{key}={text} cannot be read; put the value into quotes: {key}=\"'...'\"") from None
        parsed, value = None, text
    if parsed is not None and parsed.is_sweep_override() and (sweep or key not in _VERBATIM_KEYS):
        if not sweep:
            raise ValueError(f"{key}={text} names several values; add -m for a run with each")
        return _sweep_values(key, text, parsed), f"{key}={text}"
    if "${" in text or text == "???":
        raise ValueError(f"{key}={text}: set the value itself; interpolations are not resolved")
    quoted = text.startswith(("'", '"'))
    if key in _VERBATIM_KEYS and value is not None and not (quoted and isinstance(value, str)):
        value = text
    if key in PATH_KEYS and isinstance(value, str):
        value = str(Path(value).expanduser()) if value else value
    if not isinstance(value, str):
        return [value], f"{key}={text}"
    return [value], f"{key}={to_hydra(value)}"


def parse_value(text: str) -> Any:
    """Parse a value in Hydra's grammar; other text is returned unchanged."""
    try:
        return OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return text


def _sweep_values(key: str, text: str, parsed: Any) -> list[Any]:
    value = parsed.value()
    if isinstance(value, Glob) and key in groups():
        return list(value.filter(group_choices(key)))
    try:
        found = list(itertools.islice(parsed.sweep_iterator(), _MAX_RUNS + 1))
    except (HydraException, ValueError, ArithmeticError):
        found = []
    if not 1 <= len(found) <= _MAX_RUNS:
        raise ValueError(f"{key}={text} must name at least one value and at most {_MAX_RUNS:,}")
    return [Override._convert_value(x) for x in found]


def to_hydra(value: Any) -> str:
    """Return a value in Hydra's grammar; text is quoted where it would be parsed as something else."""
    if not isinstance(value, str):
        return "null" if value is None else str(value)
    try:
        if OverridesParser.create().parse_override(f"key={value}").value() == value:
            return value
    except HydraException:
        pass
    return QuotedString(value, Quote.single).with_quotes()
