import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

_FREE_SPACE = "free space on the disk; resume=RUN continues a run from its last checkpoint"
_REMEDIES = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: _FREE_SPACE,
    errno.ENOENT: "its folder is not there, or was removed meanwhile",
    errno.ENOTDIR: "part of its path is a file, not a folder",
}
_CHOOSE_OTHER = "choose a folder that can be written to"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file next to the target, then rename it: a kill at any moment leaves the old file intact.

    Args:
        path: target; its folder must exist.
        write: function that writes the content to a path.

    Raises:
        OSError: the file cannot be written; the message contains reason and remedy.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a.txt", lambda path: path.write_text("whole"))
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):  # of no use to anyone
            unfinished.unlink()
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> OSError:
    """Return the error of a path that cannot be written, with reason and remedy.

    Example:
        >>> print(write_error(Path("runs/a/status.json"), OSError(errno.EROFS, "Read-only file system")))
        runs/a/status.json cannot be written (Read-only file system): choose a folder that can be written to
    """
    reason = error.strerror or str(error)
    return OSError(f"{path} cannot be written ({reason}): {_REMEDIES.get(error.errno or 0, _CHOOSE_OTHER)}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data to a JSON file atomically; create its folder if needed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"seed": 1})
        ...     json.loads((Path(folder) / "a.json").read_text())
        {'seed': 1}
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_json(content))


def as_json(content: Mapping[str, Any]) -> str:
    r"""Return plain data as indented JSON.

    Example:
        >>> as_json({"state": "running"})
        '{\n  "state": "running"\n}\n'
    """
    return json.dumps(content, indent=2) + "\n"


@rank_zero_only
def write_text(path: Path, content: str) -> None:
    """Write a text file atomically; in distributed training on rank 0 only."""
    write_atomically(path, lambda unfinished: unfinished.write_text(content, encoding="utf-8"))
