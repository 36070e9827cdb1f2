"""What the scripts share: errors as sentences."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from zoo.training import NonFiniteError

USER_ERRORS = (ValueError, OSError, NonFiniteError)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Print an error the user can cure as its sentence, without a traceback, and exit with 1.

    Run Python with ``-X dev`` to see where it came from.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        yield
    except USER_ERRORS as error:
        if sys.flags.dev_mode:
            raise
        print(f"\nError: {error}", file=sys.stderr)
        sys.exit(1)

