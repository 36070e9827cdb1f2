from collections.abc import Mapping
from typing import Any


def check_fields(
    content: Any, kinds: Mapping[str, tuple[type, ...]], complaint: str, cure: str, optional: bool = False
) -> None:
    """Refuse what a file holds if a part is missing or of a wrong kind, and name the part.

    Args:
        content: of the file.
        kinds: what each part may be; what else there is does not matter.
        complaint: begins the message, with the name of the file.
        cure: ends it.
        optional: a part may be missing, though none may be of a wrong kind.

    Raises:
        ValueError: a part is missing or of a wrong kind.

    Example:
        >>> check_fields({"seed": "one"}, {"seed": (int,)}, "status.json is damaged", "delete it and run again")
        Traceback (most recent call last):
        ValueError: status.json is damaged (seed is 'one'); delete it and run again
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{complaint} ({type(content).__name__} in the place of named parts); {cure}")
    for name, kind in kinds.items():
        if name not in content:
            if optional:
                continue
            raise ValueError(f"{complaint} (it lacks {name}); {cure}")
        value = content[name]
        # A truth value is an int to Python, but never what a count or a name may be.
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
            shown = repr(value)
            raise ValueError(f"{complaint} ({name} is {shown if len(shown) < 60 else type(value).__name__}); {cure}")
