"""Files that are complete or absent, never torn."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsprune.errors import TspruneError


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then rename: whatever happens, `path` is the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(aside, 0o644)  # mkstemp's files are private, a report is to be passed on
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A new directory beside `path` to write to, which becomes `path` if nothing goes wrong.

    Raises TspruneError if `path` is there and is not an empty directory, or cannot be made.
    """
    path = Path(path).expanduser().absolute()
    check_free(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise TspruneError(f"cannot make the folder {path} ({error.strerror})") from None
    try:
        yield aside
        os.chmod(aside, 0o755)  # mkdtemp's directories are private
        os.replace(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def check_free(path: Path) -> None:
    """TspruneError unless `path` is not there yet, or is an empty directory."""
    if path.is_dir():
        if any(path.iterdir()):
            raise TspruneError(f"{path} is not empty; name a new folder")
    elif path.exists():
        raise TspruneError(f"{path} is a file; name a new folder")
