"""A program file and its weights, read and checked, ready to run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tsprune.deployment.program import Program
from tsprune.deployment.program_format import ProgramText, from_text, weights_of
from tsprune.errors import TspruneError, one_line
from tsprune.files import existing_file, read_text


def read_program(
    path: Path, device: torch.device | str = "cpu", *, files: Mapping[str, str] | None = None
) -> Program:
    """The program of a file, on a device; nothing that the file says is executed before it was checked.

    files : SHA-256 of the file and of its weights, by their names; None: they are not compared

    Raises TspruneError, in one line, for a file that is missing, changed, no program, or a program that this
    torch cannot run.
    """
    program = read_program_text(path, files=files)
    tensors = read_weights(path, program, files=files)
    try:
        return Program(program, tensors, device)
    except (ValueError, RuntimeError) as error:
        raise TspruneError(
            f"{path}: this is no program that tsprune can run ({one_line(error, 250)})"
        ) from None


def read_program_text(path: Path, *, files: Mapping[str, str] | None = None) -> ProgramText:
    """The program of a file without its weights; TspruneError as in `read_program`."""
    text = read_text(path, "program")
    _require_unchanged(path, files)
    try:
        return from_text(text)
    except (ValueError, RecursionError) as error:
        raise TspruneError(
            f"{path}: this is no program that tsprune can run ({one_line(error, 250)})"
        ) from None


def read_weights(
    path: Path, program: ProgramText, *, files: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The weights of a program, by their names, in the types that it computes with; TspruneError as above."""
    place = existing_file(weights_of(path), "file of weights")
    _require_unchanged(place, files)
    try:
        tensors = load_file(place)
    except (SafetensorError, OSError, ValueError) as error:
        raise TspruneError(f"{place} is not readable safetensors ({one_line(error, 200)})") from None
    expected = {weight.name for weight in program.weights}
    if set(tensors) != expected:
        odd = min(set(tensors) ^ expected)
        raise TspruneError(
            f"{place}: the weight {odd[:80]!r} is {'missing' if odd in expected else 'unknown'}"
        )
    for weight in program.weights:
        tensor = tensors[weight.name]
        if tensor.dtype != getattr(torch, weight.stored) or tuple(tensor.shape) != weight.shape:
            raise TspruneError(
                f"{place}: {weight.name[:80]} is {str(tensor.dtype).removeprefix('torch.')} of shape "
                f"{list(tensor.shape)}, and the program needs {weight.stored} of {list(weight.shape)}"
            )
        tensors[weight.name] = tensor.to(getattr(torch, weight.dtype))
    return tensors


def _require_unchanged(path: Path, files: Mapping[str, str] | None) -> None:
    if files is None:
        return
    if path.name not in files:
        raise TspruneError(f"{path} is not in the description's list of files; export the model again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != files[path.name]:
        raise TspruneError(f"{path} has another SHA-256 than when it was exported; export the model again")
