"""Errors that the user can cure, as one sentence without a traceback."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

# A library's own use of a name that torch has deprecated; nothing here can change it.
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)
LATE_ERRORS = {  # of modules that take long to import; where such a one was not, it raised nothing either
    "zoo.training": "NonFiniteError",
    "zoo.control": "EnvWorkerError",
    "pytorch_lightning.utilities.exceptions": "MisconfigurationException",
}
TOO_LARGE = (  # how torch says so
    "DefaultCPUAllocator",
    "out of memory",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    "Overflow when unpacking long",
)


@contextmanager
def user_errors() -> Iterator[None]:
    """Print an error the user can cure as its sentence, without a traceback, and exit with 1.

    Run Python with ``-X dev`` to see where it came from.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sentence = error_message(error)
        if sentence is None or sys.flags.dev_mode:
            raise
        print(f"\nError: {sentence}", file=sys.stderr)
        sys.exit(1)


def error_message(error: Exception) -> str | None:
    """Return what is wrong in a sentence, if it is something that the user can cure."""
    late = [getattr(sys.modules[module], name) for module, name in LATE_ERRORS.items() if module in sys.modules]
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return str(error).partition("\n")[0]
    if isinstance(error, (*USER_ERRORS, *late)):
        return " ".join(map(str.strip, str(error).splitlines()))  # torch's errors go over several
    if isinstance(error, MemoryError | OverflowError) or any(words in str(error) for words in TOO_LARGE):
        first = str(error).partition("\n")[0]
        return f"a size is too large for the memory of this machine: {first or type(error).__name__}"
    if "not implemented for 'BFloat16'" in str(error):
        return f"{str(error).partition(chr(10))[0]}: this model cannot compute so; set trainer.precision=32-true"
    return None


@contextmanager
def remove_if_empty(folder: Path) -> Iterator[None]:
    """Take a folder away again if an error leaves it empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it holds something, or another process was faster
            folder.rmdir()
        raise


def relative(path: Path) -> Path:
    """Shorten a path below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
