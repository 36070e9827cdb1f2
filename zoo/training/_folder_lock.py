import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from zoo.training._files import write_error

NAME = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Create a run folder, and lock it against other processes; raise ``ValueError`` if it is locked.

    The lock is one of the operating system (``flock``) on an open file. It ends with the process that holds it, so that
    the ``.lock`` of a killed run locks nothing. In distributed training rank 0 holds it for all ranks. Between machines
    it works on network file systems that support such locks, such as NFS 4; on others, two machines must not use the
    same folder.
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
        with suppress(OSError):  # the folder may be gone, or the system may not remove open files
            os.unlink(folder / NAME)  # while the lock is held: a waiting process then creates a new file
        lock.release()
