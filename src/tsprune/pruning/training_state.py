"""State files of a training: written atomically, bound to one training, and never executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tsprune.atomic import whole_file
from tsprune.errors import TspruneError
from tsprune.files import existing_file

_FORMAT = 2


def write_state(path: Path, key: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Writes `content` (tensors, numbers, strings and collections of these) atomically.

    key : identifies the training

    Raises TspruneError if the file cannot be written; an earlier file stays.
    """
    with whole_file(path) as file:
        sink = _Sink(file)
        whole = {"format": _FORMAT, "key": dict(key), "content": dict(content), "seal": _seal(key, content)}
        torch.save(_on_cpu(whole), sink)  # type: ignore[arg-type]
        if sink.error is not None:
            raise sink.error


def _on_cpu(value: Any) -> Any:
    """`value` with its tensors on the CPU, so that a machine without the accelerator can read the file."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {name: _on_cpu(one) for name, one in value.items()}
    return type(value)(map(_on_cpu, value)) if type(value) in (list, tuple) else value


class _Sink:
    """A file for `torch.save`, whose own writer aborts the process when a write raises."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        pass  # the file does, when all is written


def read_state(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a state file; TspruneError if it is damaged, or of another training."""
    source = existing_file(path, "state")
    try:
        # only tensors and plain values: nothing in the file is executed
        stored = torch.load(source, map_location="cpu", weights_only=True)
        if stored["format"] != _FORMAT:
            raise TspruneError(
                f"{source} has format {stored['format']!r}; this tsprune reads format {_FORMAT}"
            )
        found, content = dict(stored["key"]), dict(stored["content"])
        if stored["seal"] != _seal(found, content):
            raise TspruneError(f"the state {source} is damaged: it is not as it was written; name another")
        pairs = {name.replace("_", " "): (found.get(name), wanted) for name, wanted in key.items()}
        others = [name for name, (one, two) in pairs.items() if type(one) is not type(two) or one != two]
    except TspruneError:
        raise
    except Exception:  # torch raises errors of many types for damaged bytes
        raise TspruneError(f"{source} is not the state of a recovery, or is damaged; name another") from None
    if others:
        raise TspruneError(
            f"{source} is the state of another recovery (other {', '.join(others)}); name another file"
        )
    return content


def _seal(key: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """SHA-256 of all names, types, shapes and plain values; the archive's checksums cover the tensors.

    A file with a valid seal was written by a training, so its content needs no further checks.
    """
    return hashlib.sha256(_described([dict(key), dict(content)]).encode()).hexdigest()


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Mapping):
        inner = [f"{_described(name)}: {_described(one)}" for name, one in value.items()]
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_described, value))})"
    return f"{type(value).__name__} {value!r}"
