import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt
_MAX_HEAP_BLOCK = 32 * 2**20  # bytes; the maximum of glibc
_MAX_FREE = 2**30


def tune_malloc() -> bool:
    """Make the C library keep up to a gigabyte of freed memory instead of returning it to the system.

    Each step frees about as much memory as the next one allocates, and the system clears all memory that it hands out:
    with tensors of a few megabytes this takes a fifth of a step.

    Returns:
        Whether the C library supports this; only glibc does.

    Example:
        >>> tune_malloc() == (platform.libc_ver()[0] == "glibc")
        True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, _MAX_HEAP_BLOCK) and libc.mallopt(M_TRIM_THRESHOLD, _MAX_FREE))
