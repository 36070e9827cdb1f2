import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from zoo.data._paths import expand_user
from zoo.inference.programs._program import Program

FILE_SYNTAX = "program=FILE.py:MODEL:GUIDE"


class ProgramFile(NamedTuple):
    """Location of a user's program."""

    path: Path
    model: str
    guide: str


def parse_program_file(text: str) -> ProgramFile | None:
    """Parse ``FILE.py:MODEL:GUIDE``; return None if the text does not name a file."""
    path, *names = text.rsplit(":", 2)
    if ".py" not in text and not names:
        return None
    if len(names) != 2 or not all(name.isidentifier() for name in names):
        raise ValueError(f"a program in a file must be given as {FILE_SYNTAX}, got program={text}")
    return ProgramFile(expand_user(path), *names)


def load_program(text: str, trust: bool) -> Program:
    """Load a program from a user's file, with model and guide without arguments.

    The guide may be a function, a module, or a class, which is instantiated.
    """
    place = parse_program_file(text)
    if place is None:
        raise ValueError(f"a program in a file must be given as {FILE_SYNTAX}, got program={text}")
    if not place.path.is_file():
        raise FileNotFoundError(f"file {place.path} does not exist; give the program as {FILE_SYNTAX}")
    if not trust:
        raise ValueError(
            f"program={text} runs the code in {place.path} with your permissions; read it, and add trust=true if you "
            "trust it"
        )
    module = _load_module(place.path)
    model, guide = (_get_callable(module, name, place.path) for name in (place.model, place.guide))
    description = f"{place.model} and {place.guide} of {place.path}"
    return Program(description, model, lambda: guide, lambda root: ())  # type: ignore[arg-type,return-value]


def _load_module(path: Path) -> ModuleType:
    name = f"program of {path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # required by dataclasses
    with annotate_errors(path):
        spec.loader.exec_module(module)
    return module


def _get_callable(module: ModuleType, name: str, path: Path) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{path} has no function or module {name!r}; it has: {', '.join(known) or 'none'}.{hint}")
    with annotate_errors(path):
        return found() if isinstance(found, type) else found


@contextmanager
def annotate_errors(path: Path) -> Iterator[None]:
    """Re-raise errors of a user's code as ``ValueError`` with file and line."""
    try:
        yield
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno} is not Python: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame for frame in frames if Path(frame.filename).absolute() == path.absolute()]
        if not lines and not isinstance(error, TypeError):  # raised by a call with wrong arguments
            raise
        where = f"{path}, line {lines[-1].lineno}" if lines else path
        raise ValueError(f"{where}: {_error_message(error)}") from error


def _error_message(error: Exception) -> str:
    self_explanatory = isinstance(error, ValueError | FloatingPointError)
    return str(error) if self_explanatory else f"{type(error).__name__}: {error}"
