"""The state of a training in a file: whole or absent, for one training only, never executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tsprune.errors import TspruneError

FORMAT = 1


def write_state(path: Path, key: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Writes `content` (tensors, numbers, words and collections of these) beside `path`, then renames.

    key : what training it is the state of
    """
    aside = path.with_name(f".{path.name}.partial")  # one name: what a killed process left is overwritten
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"format": FORMAT, "key": dict(key), "content": dict(content)}, aside)
        aside.replace(path)
    except OSError as error:
        raise TspruneError(f"cannot write the state {path} ({error.strerror})") from None


def read_state(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """What `write_state` wrote; TspruneError if it is damaged, or the state of another training."""
    try:
        # only tensors and plain values: nothing in the file is executed
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored["format"] != FORMAT:
            raise TspruneError(f"{path} has format {stored['format']!r}; this tsprune reads format {FORMAT}")
        found, content = dict(stored["key"]), dict(stored["content"])
    except TspruneError:
        raise
    except Exception:  # torch raises whatever the bytes it stumbles over lead to
        raise TspruneError(f"{path} is not the state of a recovery, or is damaged; name another") from None
    others = [name.replace("_", " ") for name in key if found.get(name) != key[name]]
    if others:
        raise TspruneError(
            f"{path} is the state of another recovery (other {', '.join(others)}); name another file"
        )
    return content
