"""Graphs that are ready to run: ONNX Runtime's, OpenVINO's or torch's, by one interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tsprune.deployment.graph_stages import scaling_and_network
from tsprune.deployment.program_format import PROGRAM_SUFFIX
from tsprune.errors import TspruneError, one_line
from tsprune.extras import install

OPENVINO_SUFFIX = ".xml"  # its weights are in a .bin file of the same name


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
    try:
        import onnxruntime
    except ImportError:
        raise TspruneError(f"ONNX Runtime is not installed; install it with: {install('onnx')}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors
    # threads that wait within a forecast are quick, and those that wait for one take cores from others
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        found: GraphSession = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of classes that ONNX Runtime makes up
        raise TspruneError(f"{graph}: ONNX Runtime cannot read it ({one_line(error, 200)})") from None
    return found


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
