import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
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

    The folder must exist. An ``OSError`` contains reason and remedy.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> OSError:
    """Return the error of a path that cannot be written, with reason and remedy."""
    reason = error.strerror or str(error)
    return OSError(f"{path} cannot be written ({reason}): {_REMEDIES.get(error.errno or 0, _CHOOSE_OTHER)}")


@rank_zero_only
def write_text(path: Path, content: str) -> None:
    """Write a text file atomically; in distributed training on rank 0 only."""
    write_atomically(path, lambda unfinished: unfinished.write_text(content, encoding="utf-8"))


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
    write_text(path, json.dumps(content, indent=2) + "\n")


def check_fields(
    content: Any, types: Mapping[str, tuple[type, ...]], problem: str, remedy: str, optional: bool = False
) -> None:
    """Raise ``ValueError`` if a field of a file's content is missing, unless ``optional``, or has a wrong type."""
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


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Create a run folder, and lock it against other processes; raise ``ValueError`` if it is locked.

    The lock is the operating system's (``flock``) on an open file. It ends with the process that holds it, so the
    ``.lock`` of a killed run does not lock the folder. In distributed training rank 0 holds it for all ranks. Between
    machines it works on network file systems that support such locks, such as NFS 4; on others, two machines must not
    use the same folder.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"another process is at work in {folder}; stop it first, or wait until it has ended") from None
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone, or the system may not remove open files
            os.unlink(folder / ".lock")  # while the lock is held: a waiting process then creates a new file
        lock.release()
