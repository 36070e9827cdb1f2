from collections.abc import Sequence
from typing import Any


def as_args(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return positional arguments as a tuple; raise ``ValueError`` if they are not a tuple or list."""
    if not isinstance(args, tuple | list):
        raise ValueError(f"args must be a tuple, such as (x,) for one argument, got {type(args).__name__}")
    return tuple(args)
