"""Memory that was freed, returned to the system.

The C library keeps what a process frees for later, and each of its threads what it freed itself. A model in memory needs it again; of one that is
streamed it would add up to the weights that are not in memory.
"""

import ctypes
import sys
from functools import cache


def return_freed_memory() -> None:
    """Return memory that is free to the system, where the C library can (glibc); elsewhere nothing happens."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _has_glibc() -> bool:
    try:
        return sys.platform == "linux" and bool(ctypes.CDLL(None).malloc_trim)
    except AttributeError:
        return False
