from collections.abc import Mapping
from typing import Any


def check_fields(
    content: Any, types: Mapping[str, tuple[type, ...]], problem: str, remedy: str, optional: bool = False
) -> None:
    """Check the fields of a file's content and their types.

    Args:
        content: content of the file.
        types: allowed types of each field; further fields are ignored.
        problem: start of the message, with the name of the file.
        remedy: end of the message.
        optional: whether fields may be missing.

    Raises:
        ValueError: a field is missing or has a wrong type.

    Example:
        >>> check_fields({"seed": "one"}, {"seed": (int,)}, "status.json is damaged", "delete it and run again")
        Traceback (most recent call last):
        ValueError: status.json is damaged (seed is 'one'); delete it and run again
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{problem} ({type(content).__name__} instead of named fields); {remedy}")
    for name, kind in types.items():
        if name not in content:
            if optional:
                continue
            raise ValueError(f"{problem} (it lacks {name}); {remedy}")
        value = content[name]
        # bool is a subclass of int, but no valid count.
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
            shown = repr(value)
            raise ValueError(f"{problem} ({name} is {shown if len(shown) < 60 else type(value).__name__}); {remedy}")
