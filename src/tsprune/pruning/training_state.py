"""State files of a training: written atomically, bound to one training, and never executed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

import torch
from torch import nn

from tsprune.atomic import whole_file
from tsprune.errors import TspruneError
from tsprune.files import existing_file

_FORMAT = 3


def write_state(path: Path, key: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Writes `content` (tensors, numbers, strings and collections of these) atomically.

    key : identifies the training

    Raises TspruneError if the file cannot be written; an earlier file stays.
    """
    with whole_file(path) as file:
        whole = {"format": _FORMAT, "key": dict(key), "content": dict(content), "seal": _seal(key, content)}
        _write(whole, file)


def _write(content: Any, file: IO[bytes]) -> None:
    """Writes `content` with its tensors on the CPU; OSError if that fails."""
    sink = _Sink(file)
    torch.save(_on_cpu(content), sink)  # type: ignore[arg-type]
    if sink.error is not None:
        raise sink.error


class BestWeights:
    """The best weights so far: those of a model that does not change, then those in a temporary file.

    A training does not read them, so they need not be in memory. A context, which closes the file.
    """

    def __init__(self, first: nn.Module) -> None:
        self._first = first
        self._file: IO[bytes] | None = None
        self._copy: dict[str, torch.Tensor] | None = None  # if no file can be written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def kept(self) -> dict[str, torch.Tensor] | None:
        """The weights that were kept; None: none yet."""
        if self._file is None:
            return self._copy
        self._file.seek(0)
        found: dict[str, torch.Tensor] = torch.load(self._file, map_location="cpu", weights_only=True)
        return found

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The best weights."""
        kept = self.kept
        return self._first.state_dict() if kept is None else kept

    def keep(self, weights: dict[str, torch.Tensor]) -> None:
        """Keeps `weights` instead of the earlier ones."""
        self._copy = None
        try:
            self._file = self._file or tempfile.TemporaryFile(prefix="tsprune-")  # noqa: SIM115
            self._file.seek(0)
            self._file.truncate()
            _write(weights, self._file)
            self._file.flush()
        except OSError:  # a full disk
            self._file = None
            self._copy = {name: tensor.detach().clone() for name, tensor in weights.items()}


def _on_cpu(value: Any) -> Any:
    """`value` with its tensors on the CPU, so that a machine without the accelerator can read the file."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {name: _on_cpu(one) for name, one in value.items()}
    return type(value)(map(_on_cpu, value)) if type(value) in (list, tuple) else value


class _Sink:
    """A file for `torch.save`, whose own writer aborts the process when a write raises."""

    def __init__(self, file: IO[bytes]) -> None:
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
