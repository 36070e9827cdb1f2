import os
from pathlib import Path


def expand_user(path: str | Path) -> Path:
    """Return a path with ``~`` or ``~name`` expanded; raise ``FileNotFoundError`` if that home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"the home folder at the start of {path} is unknown; use an absolute path") from error


def resolve_folder(root: str | Path) -> Path:
    """Return a folder as an absolute path without symbolic links; raise ``FileNotFoundError`` if it does not exist."""
    path = Path(os.path.realpath(expand_user(root)))  # on a loop of links Path.resolve raises another error
    if path.is_dir():
        return path
    if path.exists():
        raise FileNotFoundError(f"{path} is not a folder; unpack an archive first, and use its folder")
    raise FileNotFoundError(f"there is no folder {path}; use the folder that contains the data")
