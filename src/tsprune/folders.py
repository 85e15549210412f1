"""Folders that are complete or absent: written beside their place, then renamed.

A killed process leaves a hidden folder, whose name holds its host. The next writer on this host removes it,
unless its own writer is alive and holds its lock. Folders of other hosts, which may share the file system,
are left alone.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tsprune.files import check_free, user_path, writing

try:
    import fcntl
except ImportError:  # not on Windows, where nothing stale is removed
    fcntl = None  # type: ignore[assignment]

PREFIX = ".tsprune-"
YOUNG_SECONDS = 30.0  # the lock of a folder that is as new as this may still be missing


@contextmanager
def whole_directory(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` to write to, which becomes `path` at the end unless something raises.

    Files in it get the permissions that new files have, however they were made.

    Raises TspruneError if `path` is there and is not an empty folder, also if another process wrote it
    meanwhile, or if it cannot be made or written.
    """
    path = check_free(user_path(path).absolute())
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        aside = path.parent / f"{_prefix()}{os.getpid()}-{secrets.token_hex(4)}"
        aside.mkdir()
        lock = _lock(aside)
        try:
            yield aside
            _open_to_others(aside)
            try:
                os.replace(aside, path)
            except OSError:
                check_free(path)  # raises if another process was faster
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def _prefix() -> str:
    host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:40]
    return f"{PREFIX}{host}-"


def _open_to_others(folder: Path) -> None:
    """Gives every file the permissions of one that was just made (safetensors makes private ones)."""
    probe = folder / ".probe"
    probe.touch(0o666)
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in folder.iterdir():
        file.chmod(mode)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds a folder's lock; None if another has it, or there are no locks here."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def remove_stale(parent: Path) -> None:
    """Removes the hidden folders in `parent` that killed processes of this host left there."""
    own = re.compile(re.escape(_prefix()) + r"(?P<process>\d+)-[0-9a-f]{8}")
    with suppress(OSError):
        for folder in parent.iterdir():
            if found := own.fullmatch(folder.name):
                _remove_if_dead(folder, int(found["process"]))


def _remove_if_dead(folder: Path, process: int) -> None:
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime < YOUNG_SECONDS and _alive(process):
            return
        descriptor = _lock(folder)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
