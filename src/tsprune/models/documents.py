"""The JSON files of a checkpoint, read with care (`tsprune.files`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tsprune.errors import TspruneError, one_line
from tsprune.files import parse_json, read_text

MOST_BYTES = 16 * 2**20
MOST_CONFIG_BYTES = 2**20


def read_object(path: Path, what: str, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object that a file holds.

    what : the file is, for messages

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


def read_if_there(path: Path, what: str, most: int = MOST_BYTES) -> dict[str, Any] | None:
    """`read_object`, or None if nothing is at `path`."""
    return read_object(path, what, most) if os.path.lexists(path) else None


def as_json(value: object) -> str:
    """JSON as it is in files."""
    return json.dumps(value, indent=2) + "\n"
