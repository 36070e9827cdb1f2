import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

ROOM = "make room on the disk; a run goes on from its last checkpoint with resume=RUN"
CURES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: ROOM,
    errno.ENOENT: "its folder is not there, or was removed meanwhile",
    errno.ENOTDIR: "part of its path is a file, not a folder",
}
ELSEWHERE = "choose a folder that can be written to"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then rename it: a kill at any moment leaves the one before intact.

    Args:
        path: of the file; its folder has to be there.
        write: writes the content to the path that it is given.

    Raises:
        OSError: the file cannot be written; the message says why, and what to do.

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
        with suppress(OSError):  # half a file would only fill the disk
            unfinished.unlink()
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> OSError:
    """Explain in a sentence why a file or a folder cannot be written.

    Example:
        >>> print(write_error(Path("runs/a/status.json"), OSError(errno.EROFS, "Read-only file system")))
        runs/a/status.json cannot be written (Read-only file system): choose a folder that can be written to
    """
    reason = error.strerror or str(error)
    return OSError(f"{path} cannot be written ({reason}): {CURES.get(error.errno or 0, ELSEWHERE)}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data to a file, all or nothing; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_json(content))


def as_json(content: Mapping[str, Any]) -> str:
    r"""Write plain data as people read it.

    Example:
        >>> as_json({"state": "running"})
        '{\n  "state": "running"\n}\n'
    """
    return json.dumps(content, indent=2) + "\n"


@rank_zero_only
def write_text(path: Path, content: str) -> None:
    """Write a file, all or nothing; where several processes train together the first one does."""
    write_atomically(path, lambda unfinished: unfinished.write_text(content, encoding="utf-8"))
