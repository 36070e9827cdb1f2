"""Errors that a user can fix, printed as one sentence without traceback."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

# A library, not this project, uses a name that torch has deprecated.
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")


class RunFailedError(Exception):
    """Runs of a sweep or of a reproduction failed."""


_USER_ERRORS = (ValueError, OSError, RunFailedError, HydraException, OmegaConfBaseException)
_LATE_ERRORS = {  # in modules with slow imports: looked up only if the module is imported already
    "zoo.training": "NonFiniteError",
    "zoo.control": "EnvError",
    "pytorch_lightning.utilities.exceptions": "MisconfigurationException",
}
# Exit statuses, 128 plus the number of the signal.
INTERRUPTED = 130  # SIGINT
BROKEN_PIPE = 141  # SIGPIPE
_OUT_OF_MEMORY = (  # in messages of torch
    "DefaultCPUAllocator",
    "out of memory",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    "Overflow when unpacking long",
)


@contextmanager
def user_errors() -> Iterator[None]:
    """Print an error that the user can fix as one sentence, and exit with status 1.

    After Ctrl-C the exit status is 130; after the reader of a pipe has closed it, as ``head`` does, it is 141, without
    a message. With ``python -X dev`` every other error keeps its traceback.

    Example:
        >>> with user_errors():  # prints "Error: there is no such run"
        ...     raise ValueError("there is no such run")
        Traceback (most recent call last):
        SystemExit: 1
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        yield
        sys.stdout.flush()  # at exit it would be too late to handle a closed pipe
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered is flushed at exit
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        message = error_message(error)
        if message is None or sys.flags.dev_mode:
            raise
        print(f"\nError: {message}", file=sys.stderr)
        sys.exit(1)


def error_message(error: Exception) -> str | None:
    """Return the message of an error that the user can fix, on one line; None for other errors."""
    late = [getattr(sys.modules[module], name) for module, name in _LATE_ERRORS.items() if module in sys.modules]
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return str(error).partition("\n")[0]
    if isinstance(error, (*_USER_ERRORS, *late)):
        return " ".join(map(str.strip, str(error).splitlines()))  # torch's messages may have several
    if isinstance(error, MemoryError | OverflowError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        first = str(error).partition("\n")[0]
        return f"a size is too large for the memory of this machine: {first or type(error).__name__}"
    if "not implemented for 'BFloat16'" in str(error):
        return (
            f"{str(error).partition(chr(10))[0]}: this model does not support bfloat16; set trainer.precision=32-true"
        )
    return None


@contextmanager
def remove_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder if an error leaves it empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty, or removed by another process
            folder.rmdir()
        raise


def relative(path: Path) -> Path:
    """Return a path relative to the current folder if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
