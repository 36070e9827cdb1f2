import os
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """Path with ``~`` or ``~name`` at its start replaced by that user's home folder.

    Raises:
        FileNotFoundError: there is no such user, or the home folder is not known.

    Example:
        >>> user_path("~/images") == Path.home() / "images"
        True
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{path} begins with a user whose home folder is not known; write it out") from error


def data_folder(root: str | Path) -> Path:
    """Folder of a user's data, as an absolute path without links.

    Raises:
        FileNotFoundError: there is no such folder.

    Example:
        >>> data_folder(".") == Path.cwd()
        True
    """
    path = Path(os.path.realpath(user_path(root)))  # Path.resolve raises an error of its own on a loop of links
    if path.is_dir():
        return path
    if path.exists():
        raise FileNotFoundError(f"{path} is no folder; give a folder, and unpack an archive first")
    raise FileNotFoundError(f"there is no folder {path}; give the folder that holds your data")
