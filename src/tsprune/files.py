"""Files of users: checks that a path can be read or written, and safe reading.

Every function raises TspruneError, in one line that names the path. Nothing here blocks: a pipe or a device
in place of a file is refused before it is opened for reading.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tsprune.errors import TspruneError, one_line

TEXT_BYTES = 64 * 2**20  # of a file that is read whole: plans, records, listings
OBJECT_BYTES = 16 * 2**20  # of a JSON object of a checkpoint
CONFIG_BYTES = 2**20
JSON_DEPTH = 100  # of nested lists and objects; what this package writes has fewer than ten

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # an open one ends with the text
_BRACKET = re.compile(r"[][{}]")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def user_path(path: str | Path) -> Path:
    """`path` with ~ expanded; TspruneError for a name that no file can have."""
    text = os.fspath(path)
    if not text:
        raise TspruneError("an empty path names no file")
    if "\0" in text:
        raise TspruneError(f"{text!r} holds a NUL character, which no path can")
    try:
        text.encode(errors="surrogateescape")
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise TspruneError(f"{text} holds characters that no path can") from None
    except RuntimeError:
        raise TspruneError(f"{text}: there is no such user to expand ~ for") from None


def status(path: Path) -> os.stat_result | None:
    """The status of `path`, links followed; None if nothing is there.

    Raises TspruneError for a link to nothing, and for a path that cannot be examined (a name that is too
    long, a folder that may not be entered).
    """
    try:
        return path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise TspruneError(f"{path} is a link to {os.readlink(path)}, which is not there") from None
        return None
    except NotADirectoryError:
        return None
    except OSError as error:
        raise TspruneError(f"cannot use the path {path} ({reason(error)})") from None


def reason(error: BaseException) -> str:
    """The reason that an OSError, or another library's exception, gives, without the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error, 200) or type(error).__name__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors while `path` is written (no space, no permission, ...) become one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TspruneError(f"cannot write {path} ({reason(error)})") from None


def check_file(path: str | Path) -> Path:
    """The path of a file that can be written, in place of an existing one; nothing is made.

    Raises TspruneError if a folder, a pipe or a device is there, or its folder cannot be written to.
    """
    target = user_path(path)
    found = status(target)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise TspruneError(f"{target} is a folder; name a file")
    if found is not None:
        _require_regular(target, found)
    _check_new(target)
    return target


def check_files(*paths: Path | None) -> None:
    """`check_file` of all paths that are not None; also that no two of them are one file."""
    targets = [check_file(path).absolute() for path in paths if path is not None]
    for target in targets:
        if targets.count(target) > 1:
            raise TspruneError(f"{target} is named twice; name two files")


def output_folder(path: str | Path) -> Path:
    """`path` as a folder that can be written to, made if need be, before hours of work depend on it."""
    folder = user_path(path)
    found = status(folder)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise TspruneError(f"{folder} is a file; name a folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TspruneError(f"cannot make the folder {folder} ({reason(error)})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TspruneError(f"cannot write to the folder {folder}")
    return folder


def check_free(path: str | Path) -> Path:
    """The path of a folder that is still to be made, or is empty; nothing is made.

    Raises TspruneError if something is there, or it could not be made there.
    """
    target = user_path(path)
    found = status(target)
    if found is None:
        _check_new(target)
        return target
    if not stat.S_ISDIR(found.st_mode):
        raise TspruneError(f"{target} is a file; name a new folder")
    if target.is_symlink():
        raise TspruneError(f"{target} is a link; name a new folder")
    try:
        taken = any(target.iterdir())
    except OSError as error:
        raise TspruneError(f"cannot use the folder {target} ({reason(error)})") from None
    if taken:
        raise TspruneError(f"{target} is not empty; name a new folder")
    _check_new(target)
    return target


def _check_new(target: Path) -> None:
    """TspruneError unless a new entry `target` can be made, its missing folders included."""
    name = os.fsencode(target.name)
    if not name or target.name == "..":
        raise TspruneError(f"{target} cannot be the name of a new file or folder")
    parent = target.absolute().parent
    while (found := status(parent)) is None:
        parent = parent.parent
    if not stat.S_ISDIR(found.st_mode):
        raise TspruneError(f"cannot make the folder {target.parent} ({parent} is a file)")
    if not may_write(parent):
        raise TspruneError(f"cannot write to the folder {parent}")


def may_write(folder: Path) -> bool:
    """Whether something can be put into a folder."""
    try:
        read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)  # root may write everywhere else
    except (OSError, AttributeError):
        read_only = False
    return os.access(folder, os.W_OK | os.X_OK) and not read_only


def _require_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "not a file")
        raise TspruneError(f"{path} is {kind}; name a file")


def existing_file(path: str | Path, what: str) -> Path:
    """The path of a regular file that is there and can be read.

    what : the kind of file, for the message, e.g. "plan"
    """
    source = user_path(path)
    found = status(source)
    if found is None:
        raise TspruneError(f"there is no {what} {source}")
    if stat.S_ISDIR(found.st_mode):
        raise TspruneError(f"cannot read the {what} {source} (Is a directory)")
    _require_regular(source, found)
    if not os.access(source, os.R_OK):
        raise TspruneError(f"cannot read the {what} {source} ({os.strerror(errno.EACCES)})")
    return source


def read_text(path: str | Path, what: str, *, most: int = TEXT_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `most` bytes."""
    source = existing_file(path, what)
    try:
        # another file may have been put there since the check: it cannot block, nor be read without an end
        handle = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with os.fdopen(handle, "rb") as file:
            _require_regular(source, os.fstat(file.fileno()))
            content = file.read(most + 1)
        if len(content) > most:
            raise TspruneError(f"{source} is too large for a {what}: more than {most // 2**20} MiB")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise TspruneError(f"cannot read the {what} {source} ({reason(error)})") from None
    except UnicodeDecodeError:
        raise TspruneError(f"cannot read the {what} {source} (not a text file)") from None


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError, with a short reason, for anything else.

    Nesting deeper than `JSON_DEPTH` is refused as well, before Python's own parser runs out of stack.
    """
    if text.count("[") + text.count("{") > JSON_DEPTH:
        depth = 0
        for bracket in _BRACKET.findall(_STRING.sub("", text)):
            depth += 1 if bracket in "[{" else -1
            if depth > JSON_DEPTH:
                raise ValueError(f"nested more than {JSON_DEPTH} levels deep")
    return json.loads(text)


def read_object(path: Path, what: str, most: int = OBJECT_BYTES) -> dict[str, Any]:
    """The JSON object that a file of a checkpoint holds.

    what : the kind of file, for messages

    Raises TspruneError if it cannot be read, is not a regular file, or holds anything else.
    """
    try:
        value = parse_json(read_text(path, what, most=most))
    except TspruneError as error:
        if "not a text file" in str(error):
            raise TspruneError(f"{path} is not readable JSON (not a text file)") from None
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise TspruneError(f"{path} is not readable JSON ({one_line(error, 200)})") from None
    if not isinstance(value, dict):
        raise TspruneError(f"{path} does not hold a JSON object")
    return value


def as_json(value: object) -> str:
    """JSON as it is in files."""
    return json.dumps(value, indent=2) + "\n"
