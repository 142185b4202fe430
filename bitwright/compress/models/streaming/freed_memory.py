"""Memory that was freed, returned to the system.

The C library keeps what a process frees for later, and each of its threads what it freed itself. A model in memory needs it again; of one that is
streamed it would add up to the weights that are not in memory.

`malloc_trim` does not return what is free at the end of a thread's own memory, up to 64 MB of it. A streamed model has a thread for each batch of
each choice, of which one runs at any time, so all of them use the same memory.
"""

import ctypes
import sys
from functools import cache

_ARENA_MAX = -8  # of malloc.h: bound on the ranges of memory that threads allocate from


def return_freed_memory() -> None:
    """Return memory that is free to the system, where the C library can (glibc); elsewhere nothing happens."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def share_memory() -> None:
    """Have threads that begin from now on use the memory that others freed, where the C library can (glibc); elsewhere nothing happens."""
    if _has_glibc():
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


@cache
def _has_glibc() -> bool:
    try:
        return sys.platform == "linux" and bool(ctypes.CDLL(None).malloc_trim)
    except AttributeError:
        return False
