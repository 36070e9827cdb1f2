import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_ON_HEAP = 32 * 2**20  # bytes; glibc takes no more
KEPT = 2**30


def tune_malloc() -> bool:
    """Let the C library keep up to a gigabyte that was freed, instead of giving it back to the system.

    Each step frees about as much as the next one needs, and memory that comes from the system has to be filled with
    zeros first: with tensors of a few megabytes that is a fifth of a step.

    Returns:
        Whether the C library can be told so; only glibc can.

    Example:
        >>> tune_malloc() == (platform.libc_ver()[0] == "glibc")
        True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST_ON_HEAP) and libc.mallopt(M_TRIM_THRESHOLD, KEPT))
