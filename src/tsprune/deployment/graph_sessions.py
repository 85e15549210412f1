"""Graphs that are ready to run: ONNX Runtime's, OpenVINO's or torch's, by one interface."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tsprune.deployment.graph_stages import scaling_and_network
from tsprune.deployment.program_format import PROGRAM_SUFFIX
from tsprune.errors import TspruneError, one_line
from tsprune.extras import install

OPENVINO_SUFFIX = ".xml"  # its weights are in a .bin file of the same name
_ROWS_EACH = 16  # of one thread by itself; fewer rows are computed sooner by all threads together
_MOST_BYTES = 400_000_000  # of a graph that is loaded a second time


class GraphSession(Protocol):
    """A graph that is ready to run, as ONNX Runtime's InferenceSession."""

    def run(self, names: None, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Outputs of the graph, for inputs by name."""
        ...

    def get_inputs(self) -> Sequence[Any]:
        """Its inputs in order; each has a `name`."""
        ...


def graph_session(
    graph: Path,
    threads: int | None = None,
    *,
    bf16: bool = False,
    device: str | None = "cpu",
    files: Mapping[str, str] | None = None,
) -> GraphSession:
    """A graph file, ready to run.

    threads : of the runtime; None: one a core
    bf16 : OpenVINO computes the network in bfloat16 where the processor can, and scaling in fp32
    device : of torch, for its programs; None: CUDA if there is one, else the CPU. Others run on the CPU
    files : SHA-256 by name, which the files of torch's programs must have; None: whatever they have

    Raises TspruneError with one line if the runtime is not installed, or cannot read the graph.
    """
    if graph.suffix == PROGRAM_SUFFIX:
        from tsprune.deployment.program_session import program_session  # imports torch

        return program_session(graph, threads, device, files)
    return _openvino(graph, threads, bf16) if graph.suffix == OPENVINO_SUFFIX else _onnx(graph, threads)


def _onnx(graph: Path, threads: int | None) -> GraphSession:
    together, several = _onnx_session(graph, threads or 0), threads or _cores()
    size = sum(length for length, _ in _state(graph))
    return (
        _Parts(graph, several, together, _state(graph)) if several > 1 and size <= _MOST_BYTES else together
    )


def _state(graph: Path) -> list[tuple[int, int]]:
    """Size and time of the graph's files: itself and, of large ones, its weights."""
    paths = graph, graph.with_name(f"{graph.name}.data")
    return [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()]


def _cores() -> int:
    """Those that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _onnx_session(graph: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise TspruneError(f"ONNX Runtime is not installed; install it with: {install('onnx')}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    # threads that wait within a forecast are quick, and those that wait for one take cores from others
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that ONNX Runtime makes up
        raise TspruneError(f"{graph}: ONNX Runtime cannot read it ({one_line(error, 200)})") from None


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A graph of ONNX Runtime, for few rows with all threads, for many with a part of the rows a thread.

    Threads that compute an operator together wait for each other at its end; parts do not, and more of what
    they compute stays in a core's cache. The graph is loaded a second time when parts are first asked for.
    """

    graph: Path
    threads: int
    together: Any
    state: list[tuple[int, int]]

    def run(self, names: None, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        axis = self._rows
        split = {one.name for one in self.get_inputs() if axis and one.shape[:1] == [axis]} & set(inputs)
        rows = {len(inputs[name]) for name in split}
        if len(rows) != 1 or (count := rows.pop()) < _ROWS_EACH * self.threads or self._alone is None:
            return self.together.run(None, inputs)  # type: ignore[no-any-return]
        ends = [count * place // self.threads for place in range(self.threads + 1)]
        parts = [
            {name: values[start:end] if name in split else values for name, values in inputs.items()}
            for start, end in itertools.pairwise(ends)
        ]
        alone = self._alone
        found = list(self._pool.map(lambda part: alone.run(None, part), parts))
        return [np.concatenate(values) for values in zip(*found, strict=True)]

    def get_inputs(self) -> Sequence[Any]:
        return self.together.get_inputs()  # type: ignore[no-any-return]

    @cached_property
    def _rows(self) -> str | None:
        """The name of the axis of rows, which are independent: the first one of every output."""
        found = {one.shape[0] if one.shape else None for one in self.together.get_outputs()}
        axis = found.pop() if len(found) == 1 else None
        return axis if isinstance(axis, str) else None

    @cached_property
    def _alone(self) -> Any:
        """For one thread; None if the files are no longer those that were loaded."""
        return _onnx_session(self.graph, 1) if _state(self.graph) == self.state else None

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="forecast")


def _openvino(graph: Path, threads: int | None, bf16: bool) -> GraphSession:
    core = require_openvino().Core()
    settings = {"PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
    # its own choice is bfloat16 where the processor has it, also for scaling: 2 % off
    hints = ["f32", "bf16"] if bf16 else ["f32"]
    try:
        model = core.read_model(str(graph))
        stages = scaling_and_network(model) if bf16 else (model,)
        compiled = (
            _compiled(core, stage, settings | {"INFERENCE_PRECISION_HINT": hint})
            for stage, hint in zip(stages, hints, strict=True)
        )
        return _OpenVino(tuple(compiled))
    except (RuntimeError, ValueError) as error:
        raise TspruneError(f"{graph}: OpenVINO cannot read it ({one_line(error, 200)})") from None


def _compiled(core: Any, stage: Any, settings: Mapping[str, str]) -> Any:
    try:
        # its code for fused attention is slower than the parts: 46 and 36 ms for 64 series of Bolt in bf16
        return core.compile_model(stage, "CPU", {**settings, "SNIPPETS_MODE": "DISABLE"})
    except RuntimeError:  # of another version, which has no such setting
        return core.compile_model(stage, "CPU", dict(settings))


@dataclasses.dataclass(frozen=True)
class _Input:
    name: str


@dataclasses.dataclass(frozen=True)
class _OpenVino:
    """A graph that OpenVINO compiled, in stages: each takes the outputs of the one before it."""

    stages: tuple[Any, ...]

    def run(self, names: None, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        values: dict[Any, NDArray[Any]] = dict(inputs)
        for stage in self.stages:
            found = stage(values, share_inputs=True)
            values = {place: found[place] for place in range(len(stage.outputs))}
        return [value.copy() for value in values.values()]

    def get_inputs(self) -> list[_Input]:
        return [_Input(one.any_name) for one in self.stages[0].inputs]


def require_openvino() -> Any:
    """The package; TspruneError if it is missing."""
    try:
        import openvino
    except ImportError:
        raise TspruneError(f"OpenVINO is not installed; install it with: {install('openvino')}") from None
    return openvino
