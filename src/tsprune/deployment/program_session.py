"""A torch-export program as a `GraphSession`: arrays in, arrays out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.deployment.program import Program, input_shape
from tsprune.deployment.program_format import Axis, ProgramInput
from tsprune.deployment.program_reading import read_program
from tsprune.models.placement import device_of


@dataclasses.dataclass(frozen=True)
class ProgramSession:
    """A program that is ready to run; `threads` of torch, None: as many as torch has."""

    program: Program
    threads: int | None = None

    def run(self, names: None, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Outputs of the program; ValueError for inputs of other names, types or shapes than it has."""
        tensors = _tensors(self.program, inputs)
        with _threads(self.threads), torch.inference_mode():
            return [output.numpy(force=True) for output in self.program(*tensors)]

    def get_inputs(self) -> tuple[ProgramInput, ...]:
        """Its inputs in order."""
        return self.program.program.inputs


def program_session(
    path: Path, threads: int | None, device: str | None, files: Mapping[str, str] | None
) -> ProgramSession:
    """A program file, ready to run; TspruneError as in `read_program`, and for a device that is not there."""
    return ProgramSession(read_program(path, device_of(device), files=files), threads)


def _tensors(program: Program, inputs: Mapping[str, NDArray[Any]]) -> list[Tensor]:
    text = program.program
    expected = [one.name for one in text.inputs]
    if sorted(inputs) != sorted(expected):
        raise ValueError(f"the inputs are {', '.join(expected)}, not {', '.join(inputs)}")
    sizes: dict[str, int] = {}
    for one in text.inputs:
        array = inputs[one.name]
        if str(array.dtype) != one.dtype or array.ndim != len(one.shape):
            raise ValueError(
                f"{one.name} is {array.dtype} of shape {array.shape}, not {one.dtype} as exported"
            )
        for size, axis in zip(array.shape, one.shape, strict=True):
            if isinstance(axis, Axis):
                sizes.setdefault(axis.size, size // axis.times)
        if list(array.shape) != input_shape(one, sizes):
            raise ValueError(f"{one.name} has shape {array.shape}, which does not fit the exported one")
    for name, size in sizes.items():
        # torch's least is 2 where 1 was asked for, as it distinguishes 1 while it traces
        most = text.sizes[name][1]
        if not 1 <= size <= most:
            raise ValueError(f"a size is {size}, not from 1 to {most}")
    return [torch.from_numpy(np.ascontiguousarray(inputs[name])).to(program.device) for name in expected]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads of torch while it lasts."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
