"""Files that are complete or absent, never torn.

A file is written under a hidden name beside its target, flushed to the disk and then renamed. Each of two
writers of one target has its own name, and the last rename wins. The next writer of a target removes the
files that killed processes left: nobody holds their locks.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tsprune.files import check_file, writing

try:
    import fcntl
except ImportError:  # not on Windows, where nothing stale is removed
    fcntl = None  # type: ignore[assignment]

__all__ = ["whole_file", "write_whole"]

_SUFFIX = ".partial"


def write_whole(path: str | Path, content: bytes) -> None:
    """Write `content` beside `path`, then rename: `path` is always the old file or the new one, whole.

    Raises TspruneError if it cannot be written.
    """
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A new file beside `path` to write to, which becomes `path` at the end unless something raises.

    A link at `path` is replaced, not followed. Missing folders are made.

    Raises TspruneError if it cannot be written, or a folder, a pipe or a device is there.
    """
    target = check_file(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        handle, aside = _aside(target)
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if fcntl is None:  # an open file cannot be renamed
                os.close(handle)
            os.replace(aside, target)
            _flush_folder(target.parent)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        finally:
            if fcntl is not None:
                os.close(handle)


def _prefix(target: Path) -> str:
    # names have at most 255 bytes; a character may take four
    return f".{target.name[:40]}."


def _aside(target: Path) -> tuple[int, Path]:
    """A new file beside `target`, open and locked by this process."""
    while True:
        path = target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}{_SUFFIX}")
        # O_EXCL follows no link and opens nothing that is there; the mode is the user's own (umask)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        if _lock(handle) and os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)  # another writer took it for a stale one in that instant


def _lock(handle: int) -> bool:
    """Whether nobody else holds the lock of an open file; True where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _remove_stale(target: Path) -> None:
    """Removes the files that killed writers of `target` left beside it."""
    if fcntl is None:
        return
    with suppress(OSError):
        for path in target.parent.iterdir():
            if path.name.startswith(_prefix(target)) and path.name.endswith(_SUFFIX):
                _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where a writer is alive
            path.unlink()
        finally:
            os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Flushes the new name to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
