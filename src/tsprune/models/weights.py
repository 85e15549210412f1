"""The weight files of a checkpoint and their headers; only safetensors, which execute nothing.

Which files are read, in this order:

1. the shards that `model.safetensors.index.json` lists,
2. `model.safetensors`,
3. a complete set `NAME-00001-of-00003.safetensors` ... without an index, or the only file there is.

Every tensor must be in one place, and a file or a tensor that would not be read is named and refused: a
number from half of a checkpoint would look like any other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from tsprune.arguments import shown
from tsprune.errors import TspruneError, one_line
from tsprune.files import existing_file, read_object

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_CHUNK = 2**22  # bytes that are hashed at once

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Headers:
    """The content of the headers of weight files.

    shapes, dtypes, files : of every tensor: its shape, its type as safetensors writes it ("F16"), its file
    metadata : free text by key
    """

    shapes: Shapes
    dtypes: Mapping[str, str]
    files: Mapping[str, Path]
    metadata: Mapping[str, str]


def named(names: Iterable[object], most: int = 3) -> str:
    """The first `most` names, and how many more there are."""
    found = [one_line(name, 100) for name in names]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def weight_map(directory: Path) -> dict[Path, frozenset[str] | None]:
    """By file of a checkpoint: the tensors it must hold, as an index states them; None without an index.

    Raises TspruneError if there are no files, or not all of them.
    """
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise TspruneError(f"cannot read the folder {directory} ({error.strerror})") from None
    weights = [name for name in names if name.endswith(".safetensors") and name != ADAPTER_WEIGHTS]
    present = [name for name in weights if name == WEIGHTS or not (directory / name).is_dir()]
    chosen: dict[Path, frozenset[str] | None]
    if os.path.lexists(directory / INDEX):
        listed = _indexed(directory / INDEX)
        _require_no_others(directory, present, listed, f"{INDEX} does not list")
        chosen = {directory / name: tensors for name, tensors in listed.items()}
    else:
        chosen = dict.fromkeys(_without_index(directory, present))
    for path in chosen:
        if not os.path.lexists(path):
            raise TspruneError(
                f"the checkpoint {path.parent} is incomplete: the shard {path.name} is missing"
            )
        if existing_file(path, "weight file").stat().st_size == 0:
            raise TspruneError(f"{path} is damaged: it is empty")
    return chosen


def _without_index(directory: Path, present: Sequence[str]) -> list[Path]:
    if WEIGHTS in present:
        _require_no_others(directory, present, [WEIGHTS], f"{WEIGHTS} is read, but not")
        return [directory / WEIGHTS]
    if not present:
        pickles = sorted(name for name in os.listdir(directory) if name.endswith(_PICKLES))
        if not pickles:
            raise TspruneError(f"{directory} holds no checkpoint: there is no {WEIGHTS}")
        raise TspruneError(
            f"{directory} holds only {one_line(pickles[0], 80)}, a pickle that could execute code; "
            f"convert it to {WEIGHTS} first"
        )
    shards = [_SHARD.fullmatch(name) for name in present]
    first = shards[0]
    if first is None:
        _require_no_others(directory, present, present[:1], f"{present[0]} is read, but not")
        return [directory / present[0]]
    count = int(first["count"])
    if not 1 <= count <= 10_000:
        raise TspruneError(f"{directory}: {one_line(present[0], 80)} states an impossible number of shards")
    wanted = [f"{first['stem']}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    _require_no_others(directory, present, wanted, "these belong to another checkpoint:")
    return [directory / name for name in wanted]


def _require_no_others(directory: Path, present: Sequence[str], chosen: Iterable[str], problem: str) -> None:
    others = sorted(set(present) - set(chosen))
    if others:
        raise TspruneError(
            f"{directory} holds weights that would be left out; {problem} {named(others)}: "
            "move them to a folder of their own"
        )


def _indexed(path: Path) -> dict[str, frozenset[str]]:
    """By file name: the tensors that an index places there."""
    placed = read_object(path, "index").get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise TspruneError(f"{path} has no weight_map that names the shards")
    tensors: dict[str, set[str]] = {}
    for tensor, file in placed.items():
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise TspruneError(f"{path} names {shown(file)} as a shard; shards are .safetensors files")
        if file != os.path.basename(file) or "\\" in file or "\0" in file or len(file) > 255:
            raise TspruneError(f"{path} names {shown(file)}, which is not a file of its folder")
        tensors.setdefault(file, set()).add(tensor)
    return {file: frozenset(names) for file, names in sorted(tensors.items())}


def read_headers(directory: Path) -> Headers:
    """The headers of a checkpoint's weight files.

    Raises TspruneError for a file that is missing, damaged or not a regular file, a tensor that is in two
    files, and one that an index places elsewhere or does not know.
    """
    found = Headers({}, {}, {}, {})
    for path, expected in weight_map(directory).items():
        one = file_headers(path)
        twice = sorted(one.shapes.keys() & found.shapes.keys())
        if twice:
            first = found.files[twice[0]].name
            raise TspruneError(f"{directory}: {named(twice)} is in {first} and again in {path.name}")
        there = frozenset(one.shapes)
        if missing := sorted((expected or there) - there):
            raise TspruneError(f"{path} lacks {named(missing)}, which {INDEX} places there")
        if unknown := sorted(there - (there if expected is None else expected)):
            raise TspruneError(f"{path} holds {named(unknown)}, which {INDEX} does not place there")
        found = Headers(
            {**found.shapes, **one.shapes},
            {**found.dtypes, **one.dtypes},
            {**found.files, **one.files},
            {**found.metadata, **one.metadata},
        )
    if not found.shapes:
        raise TspruneError(f"{directory} holds no checkpoint: its weight files hold no tensor")
    return found


def file_headers(path: Path) -> Headers:
    """The header of one safetensors file; TspruneError if it is damaged."""
    existing_file(path, "weight file")
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    try:
        with safe_open(path, framework="np") as tensors:  # which need not import torch
            metadata = dict(tensors.metadata() or {})
            for name in tensors.keys():  # noqa: SIM118  (not a dict)
                tensor = tensors.get_slice(name)
                shapes[name], dtypes[name] = tuple(tensor.get_shape()), str(tensor.get_dtype())
    except (SafetensorError, OSError, ValueError, OverflowError, TypeError) as error:
        raise TspruneError(f"{path} is damaged or not a safetensors file ({one_line(error, 200)})") from None
    return Headers(shapes, dtypes, dict.fromkeys(shapes, path), metadata)


def tensors(headers: Headers, names: Iterable[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) one after the other, file by file: of `names`, or of all."""
    wanted = set(headers.shapes if names is None else names)
    for path in dict.fromkeys(headers.files.values()):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (not a dict)
                    if name in wanted:
                        yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise TspruneError(f"{path} is damaged or has changed ({one_line(error, 200)})") from None


def sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, hexadecimal; TspruneError if one cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        existing_file(path, "weight file")
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise TspruneError(f"cannot read {path} ({error.strerror})") from None
    return digest.hexdigest()
