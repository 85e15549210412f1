"""Graphs of families traced by torch, and written as ONNX or as programs of torch."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tsprune.choices import TORCH_EXPORT
from tsprune.deployment.description import GRAPH, STEP
from tsprune.deployment.graph_rewriting import divide_by_roots
from tsprune.deployment.program_format import PROGRAM_SUFFIX
from tsprune.deployment.program_writing import write_program
from tsprune.errors import TspruneError, one_line
from tsprune.models.graph_ops import MOST_ROWS

_OPSET = 20


@dataclasses.dataclass(frozen=True)
class Traced:
    """A graph as torch traced it.

    name : of its file as ONNX
    inputs, outputs : their names, in order
    weight_bytes : of the module that was traced
    """

    name: str
    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight_bytes: int

    def write(self, folder: Path, format: str) -> None:
        """Writes it to a folder, as ONNX or as a program of torch.

        Weights are in a file beside it, those of ONNX if they are beyond 2 GB. Raises TspruneError if the
        format cannot express it.
        """
        write = self._as_program if format == TORCH_EXPORT else self._as_onnx
        with _one_line("torch-export" if format == TORCH_EXPORT else "ONNX"), _silent():
            write(folder / self.name)

    def _as_onnx(self, path: Path) -> None:
        found = torch.onnx.export(
            self.program,
            dynamo=True,
            input_names=self.inputs,
            output_names=self.outputs,
            opset_version=_OPSET,
            verbose=False,
        )
        assert found is not None
        divide_by_roots(found.model)
        found.save(path, external_data=self.weight_bytes > 2**31 - 2**24)

    def _as_program(self, path: Path) -> None:
        write_program(self.program, path.with_suffix(PROGRAM_SUFFIX), self.inputs, self.outputs)


def traced_pass(graph: nn.Module, span: int, length: int, future: int) -> tuple[Traced, ...]:
    """A graph [B, T] -> [B, Q, H] for every B, and for T up to `length` in steps of `span`.

    future : the most numbers in its second input; 0: it has none

    Raises TspruneError if torch cannot express the graph.
    """
    example = [torch.linspace(0, 1, 6 * span).reshape(2, 3 * span).sin()]
    patches = max(4, -(-length // span))
    rows, columns = Dim("batch", min=1, max=MOST_ROWS), span * Dim("patches", min=1, max=patches)
    sizes: dict[str, Any] = {"context": {0: rows, 1: columns}}
    if future:
        example.append(torch.zeros(min(future, 3)))
        sizes["future"] = {0: Dim("future", min=1, max=future)} if future > 1 else None
    given = dict(zip(sizes, example, strict=True))
    return (_traced(GRAPH, graph, given, sizes, ("quantiles",)),)


def traced_programs(graph: Any, length: int) -> tuple[Traced, ...]:
    """The graphs of a model that draws paths, of which the second one, if there is one, is of a step.

    graph : its `programs` are `GraphProgram`s

    Raises TspruneError if torch cannot express them.
    """
    found = []
    for name, program in zip((GRAPH, STEP), graph.programs(length), strict=False):
        dims = {size: Dim(size, min=least, max=most) for size, (least, most) in program.limits.items()}
        sizes = {
            key: {axis: dims[size] for axis, size in one.sizes.items()} or None
            for key, one in program.inputs.items()
        }
        example = {key: one.example for key, one in program.inputs.items()}
        found.append(_traced(name, program.module, example, sizes, program.outputs))
    return tuple(found)


def _traced(
    name: str,
    module: nn.Module,
    example: Mapping[str, Tensor],
    sizes: Mapping[str, Any],
    outputs: tuple[str, ...],
) -> Traced:
    """sizes : by input, the dimensions that may change."""
    with _one_line("a graph"), _silent(), _without_cache():
        program = torch.export.export(
            module, tuple(example.values()), dynamic_shapes=tuple(sizes.values()), strict=False
        )
    weights = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    return Traced(name, program, tuple(example), outputs, weights)


def _without_cache() -> contextlib.AbstractContextManager[Any]:
    """While it lasts, torch keeps no results of operators on shapes.

    Where sizes are symbols, finding a kept result takes longer than computing it: a sixth of an export.
    """
    from torch._dynamo import config

    return config.patch(fake_tensor_cache_enabled=False)  # type: ignore[no-any-return, attr-defined]


@contextlib.contextmanager
def _one_line(target: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of many classes of torch's and onnxscript's own
        raise TspruneError(f"torch cannot export this model to {target} ({one_line(error, 300)})") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Neither warnings nor reports of torch's exporter, which names packages that it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
