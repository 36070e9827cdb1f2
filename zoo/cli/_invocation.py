"""The command as the user typed it: ``zoo train``, ``python -m zoo train`` or ``python scripts/train.py``."""

import sys
from pathlib import Path


def _script(command: str) -> Path | None:
    """Path of the script for a command if a script of ``scripts/`` is what runs."""
    entry = Path(sys.argv[0])
    return entry.with_name(f"{command}.py") if (entry.parent.name, entry.suffix) == ("scripts", ".py") else None


def command_name(command: str) -> str:
    """Return a command in the form in which the user started the running one, for messages and run records."""
    if _script(command) is not None:
        return f"python scripts/{command}.py"
    entry = Path(sys.argv[0])
    return f"{'python -m zoo' if (entry.parent.name, entry.name) == ('zoo', '__main__.py') else 'zoo'} {command}"


def subprocess_command(command: str) -> list[str]:
    """Return the arguments that start a command in a new process of this interpreter."""
    script = _script(command)
    return [sys.executable, *(["-m", "zoo", command] if script is None else [str(script)])]
