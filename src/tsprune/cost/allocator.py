"""The C library's treatment of memory that torch and numpy free."""

from __future__ import annotations

import ctypes
import os
import platform

# of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1  # bytes; mallopt takes an int
_OWN = "MALLOC_", "GLIBC_TUNABLES"  # beginnings of variables by which a user decides


def keep_freed_memory() -> None:
    """Makes this process reuse the memory that it frees.

    glibc returns every large freed block to the system, which then supplies it anew, page by page: up to a
    quarter of the time of a forecast with many short-lived blocks. For processes that run nothing else; a
    library must not decide this for its user. Does nothing without glibc, or if MALLOC_... or GLIBC_TUNABLES
    is set.
    """
    if platform.libc_ver()[0] != "glibc" or any(x.startswith(_OWN) for x in os.environ):
        return
    libc = ctypes.CDLL(None)
    for threshold in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        libc.mallopt(threshold, _MOST)
