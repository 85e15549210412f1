"""What is done with memory that torch and numpy give back."""

from __future__ import annotations

import ctypes
import os
import platform

# of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1  # bytes; mallopt takes an int


def keep_freed_memory() -> bool:
    """Has this process use memory again that it freed, and says whether it will.

    glibc gives every large block back to the system when it is freed, which then hands it out anew, page by
    page: up to a quarter of a forecast that makes many short-lived ones. For processes that run nothing
    else; a library must not decide this for its user. Does nothing without glibc, or where the user set
    MALLOC_... or GLIBC_TUNABLES.
    """
    if platform.libc_ver()[0] != "glibc" or any(x.startswith(("MALLOC_", "GLIBC_")) for x in os.environ):
        return False
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(_MMAP_THRESHOLD, _MOST), libc.mallopt(_TRIM_THRESHOLD, _MOST)])
