import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from zoo.training.writing import write_error

NAME = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Make a run's folder, and keep other processes out of it for as long as this one works there.

    The lock is the operating system's (``flock``), of an open file, and falls with the process that holds it, however
    that ends; a ``.lock`` that a killed run left behind locks nothing. Where several processes train together the first
    one holds it for all. Between machines it holds as far as their network file system keeps such locks: NFS 4 does,
    others may not, and there two machines must not be given the same folder.

    Args:
        folder: of the run.

    Raises:
        ValueError: another process is at work in the folder.
        OSError: the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent, folder_lock(Path(parent) / "run"):
        ...     [path.name for path in Path(parent).rglob("*")]
        ['run', '.lock']
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield
        return
    lock = FileLock(folder / NAME)
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
        with suppress(OSError):  # the folder may be gone, or the system keep what is open
            os.unlink(folder / NAME)  # while it is held: who waits for it finds it gone, and takes a new one
        lock.release()
