"""What is done with memory that torch and numpy give back."""

from __future__ import annotations

import ctypes
import os
import platform

# of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1  # bytes; mallopt takes an int
_OWN = "MALLOC_", "GLIBC_TUNABLES"  # beginnings of variables by which a user decides


def keep_freed_memory() -> None:
    """Has this process use memory again that it freed.

    glibc gives every large block back to the system when it is freed, which then hands it out anew, page by
    page: up to a quarter of a forecast that makes many short-lived ones. For processes that run nothing
    else; a library must not decide this for its user. Does nothing without glibc, or where the user set
    MALLOC_... or GLIBC_TUNABLES.
    """
    if platform.libc_ver()[0] != "glibc" or any(x.startswith(_OWN) for x in os.environ):
        return
    libc = ctypes.CDLL(None)
    for threshold in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        libc.mallopt(threshold, _MOST)
