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
from zoo.inference.programs._beta_bernoulli import BETA_BERNOULLI
from zoo.inference.programs._eight_schools import EIGHT_SCHOOLS
from zoo.inference.programs._gaussian_mixture import GAUSSIAN_MIXTURE, MIXTURE_WITH_ASSIGNMENTS
from zoo.inference.programs._hmm import HMM
from zoo.inference.programs._logistic_regression import LOGISTIC_REGRESSION
from zoo.inference.programs._program import Program
from zoo.inference.programs._regression import KIDIQ, SBLRC, SBLRI

FILE_SYNTAX = "program=FILE.py:MODEL:GUIDE"

PROGRAMS: dict[str, Program] = {
    "beta_bernoulli": BETA_BERNOULLI,
    "eight_schools": EIGHT_SCHOOLS,
    "gaussian_mixture": GAUSSIAN_MIXTURE,
    "gaussian_mixture_assignments": MIXTURE_WITH_ASSIGNMENTS,
    "hmm_example": HMM,
    "kidiq": KIDIQ,
    "logistic_regression": LOGISTIC_REGRESSION,
    "sblrc": SBLRC,
    "sblri": SBLRI,
}
"""Built-in programs by name."""


def find_program(name: str, trust: bool = False) -> Program:
    """Return a built-in program by name, or load one from a user's file, ``FILE.py:MODEL:GUIDE``.

    Raises:
        ValueError: the program is unknown, or the file is not trusted or fails.
        FileNotFoundError: the file does not exist.

    Example:
        >>> find_program("beta_bernoulli").description
        "a coin's fairness; Pyro's tutorial SVI part III"
    """
    if name in PROGRAMS:
        return PROGRAMS[name]
    if (place := parse_program_file(name)) is not None:
        return load_program(place, trust)
    near = difflib.get_close_matches(name, PROGRAMS, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"unknown program {name!r}; choose one of {', '.join(PROGRAMS)}, or {FILE_SYNTAX}.{hint}")


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


def load_program(place: ProgramFile, trust: bool) -> Program:
    """Load a program without arguments; a guide that is a class is instantiated."""
    if not place.path.is_file():
        raise FileNotFoundError(f"file {place.path} does not exist; give the program as {FILE_SYNTAX}")
    if not trust:
        raise ValueError(
            f"a program in a file runs the code in {place.path} with your permissions; read it, and add trust=true if "
            "you trust it"
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
