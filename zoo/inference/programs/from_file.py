import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from zoo.data.paths import expand_user
from zoo.inference.programs.program import Program

FORM = "program=FILE.py:MODEL:GUIDE"


class Place(NamedTuple):
    """Where a program of one's own is to be found."""

    path: Path
    model: str
    guide: str


def place_of(text: str) -> Place | None:
    """Read ``FILE.py:MODEL:GUIDE``; None where a text has nothing of a file's.

    Raises:
        ValueError: it names a file, but not in this form.

    Example:
        >>> place_of("coin.py:model:guide")
        Place(path=PosixPath('coin.py'), model='model', guide='guide')
        >>> place_of("eight_schools") is None
        True
    """
    path, *names = text.rsplit(":", 2)
    if ".py" not in text and not names:
        return None
    if len(names) != 2 or not all(name.isidentifier() for name in names):
        raise ValueError(f"a program of your own is given as {FORM}, got program={text}")
    return Place(expand_user(path), *names)


def program_from_file(text: str, trust: bool) -> Program:
    """Program of a user's file, whose model and guide are called without arguments.

    The guide may be a function or a module; of a class an object is made.

    Args:
        text: ``FILE.py:MODEL:GUIDE``.
        trust: whether the code of the file may be run.

    Raises:
        ValueError: it is not trusted, it fails, it has no such names, or the text is not of this form.
        FileNotFoundError: there is no such file.
    """
    place = place_of(text)
    if place is None:
        raise ValueError(f"a program of your own is given as {FORM}, got program={text}")
    if not place.path.is_file():
        raise FileNotFoundError(f"there is no file {place.path}; give the program as {FORM}")
    if not trust:
        raise ValueError(
            f"program={text} runs the code in {place.path}, which may do whatever you may; read it, and add trust=true "
            "if you trust it"
        )
    module = module_of(place.path)
    model, guide = (named(module, name, place.path) for name in (place.model, place.guide))
    description = f"{place.model} and {place.guide} of {place.path}"
    return Program(description, model, lambda: guide, lambda root: ())  # type: ignore[arg-type,return-value]


def module_of(path: Path) -> ModuleType:
    """Run a file as a module.

    Raises:
        ValueError: its code fails.
    """
    name = f"program of {path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their module
    with failures_explained(path):
        spec.loader.exec_module(module)
    return module


def named(module: ModuleType, name: str, path: Path) -> Callable[..., Any]:
    """Look up a function or module by name; of a class make an object.

    Raises:
        ValueError: there is none.
    """
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{path} has no function or module {name!r}; it has: {', '.join(known) or 'none'}.{hint}")
    with failures_explained(path):
        return found() if isinstance(found, type) else found


@contextmanager
def failures_explained(path: Path) -> Iterator[None]:
    """Turn what a user's code raises into a sentence with the line that it comes from.

    Raises:
        ValueError: the code failed.
    """
    try:
        yield
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno} is not Python: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame for frame in frames if Path(frame.filename).absolute() == path.absolute()]
        if not lines and not isinstance(error, TypeError):  # which a call with other arguments than wanted raises
            raise
        where = f"{path}, line {lines[-1].lineno}" if lines else path
        raise ValueError(f"{where}: {sentence(error)}") from error


def sentence(error: Exception) -> str:
    """Say what an error says; its kind too, unless it is of those that speak for themselves."""
    speaks = isinstance(error, ValueError | FloatingPointError)
    return str(error) if speaks else f"{type(error).__name__}: {error}"
