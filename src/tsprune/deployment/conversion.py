"""`export`: a model as one graph, in a folder with a description, a self-test and a card."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tsprune.arguments import checked
from tsprune.choices import EXPORT_FORMATS, EXPORT_PRECISIONS, TORCH_EXPORT
from tsprune.deployment.card import card
from tsprune.deployment.description import SELF_TEST, Description, sha256_of
from tsprune.deployment.exported import Exported, load_exported, open_export
from tsprune.deployment.graph_files import in_openvino_format, store_weights_in_half
from tsprune.deployment.graph_sessions import require_openvino
from tsprune.deployment.program_rounding import program_in_half
from tsprune.deployment.quantisation import in_bf16, quantised
from tsprune.deployment.self_test import FP32_DISTANCE, measured_distance, probe_series, stored
from tsprune.deployment.tracing import Traced, traced_pass, traced_programs
from tsprune.errors import TspruneError
from tsprune.extras import install
from tsprune.files import as_json, user_path
from tsprune.folders import whole_directory
from tsprune.models import FAMILIES, Forecaster, load
from tsprune.models.contexts import checked_horizon
from tsprune.models.copies import model_copy
from tsprune.models.forecaster import SamplingForecaster
from tsprune.models.locations import EXPORT

if TYPE_CHECKING:
    from tsprune.data import Suite

_PACKAGES = ("tsprune", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")


@checked
def export(
    model: Forecaster | str | Path,
    folder: str | Path,
    *,
    horizon: int | None = None,
    context_length: int | None = None,
    precision: str = "fp32",
    format: str = "onnx",
    suite: Suite | None = None,
) -> Exported:
    """Writes `model`, pruned or not, as one graph from contexts to quantiles, and loads it.

    Scaling, patches, masks, gaps and quantiles are in the graph, for any number of series of any length.
    The folder has the graph, tsprune-export.json, a self-test (`verify_export`) and a card.

    horizon : the most steps to forecast; None: those of one pass of the network
    context_length : history longer than this is cut off in front; None: the model's
    precision : "fp32"; "fp16": weights are stored in 16 bits and computed with in 32; "bf16": OpenVINO
        computes the network in bfloat16 where the processor can, and scaling in fp32, and torch-export its
        products; or "int8", of ONNX and OpenVINO: the weights of products in 8 bits, inputs quantised as they
        come
    format : "onnx", for ONNX Runtime, "openvino", or "torch-export", which runs with torch on any device
    suite : windows on which the loss of int8 and bf16 is measured, and which products of int8 stay in
        fp32 is decided; None: some of the embedded suite

    Raises TspruneError in one line for a family without a graph, for a
    folder that is there, for a missing package, and if the graph's forecasts are not the model's.
    """
    found = exports(
        model,
        {precision: folder},
        horizon=horizon,
        context_length=context_length,
        format=format,
        suite=suite,
    )
    return found[precision]


def exports(
    model: Forecaster | str | Path,
    folders: Mapping[str, str | Path],
    *,
    horizon: int | None = None,
    context_length: int | None = None,
    format: str = "onnx",
    suite: Suite | None = None,
) -> dict[str, Exported]:
    """`export` in several precisions, whose graph is traced once.

    folders : by precision
    """
    found = exports_in_formats(
        model,
        {(precision, format): folder for precision, folder in folders.items()},
        horizon=horizon,
        context_length=context_length,
        suite=suite,
    )
    return {precision: one for (precision, _), one in found.items()}


def exports_in_formats(
    model: Forecaster | str | Path,
    folders: Mapping[tuple[str, str], str | Path],
    *,
    horizon: int | None = None,
    context_length: int | None = None,
    suite: Suite | None = None,
) -> dict[tuple[str, str], Exported]:
    """`export` in several precisions and formats, whose graph is traced once.

    folders : by precision and format
    """
    for precision, format in folders:
        _require_known(precision, format)
    loaded = load(model, device="cpu") if isinstance(model, str | Path) else model
    loaded.require_finite_weights()
    if isinstance(loaded, SamplingForecaster) and any(name in ("bf16", "int8") for name, _ in folders):
        raise TspruneError(f"{loaded.name} draws paths; it is exported in fp32 or fp16")
    for precision, format in folders:
        _require_computed(precision, format)
    steps = None if horizon is None else checked_horizon(horizon)
    length = loaded.context_length
    if context_length is not None:
        length = min(length, context_length)
    found: dict[tuple[str, str], Exported] = {}
    graphs: dict[str, tuple[Description, Path]] = {}
    trace: tuple[Description, tuple[Traced, ...]] | None = None
    for precision, format in sorted(folders, key=lambda one: EXPORT_PRECISIONS.index(one[0])):  # fp32 first
        path = user_path(folders[precision, format])
        written = TORCH_EXPORT if format == TORCH_EXPORT else "onnx"  # of which OpenVINO's is made
        with whole_directory(path) as aside:
            if written in graphs:
                about = _copied(*graphs[written], aside)
            else:
                trace = _trace(loaded, steps, length) if trace is None else trace
                about = dataclasses.replace(trace[0], graph_format=written)
                for one in trace[1]:
                    one.write(aside, written)
            about = _in_form(aside, about, precision, format, suite)
            about = _complete(loaded, aside, about)
            (aside / EXPORT).write_text(as_json(about.as_object()))
            (aside / "README.md").write_text(card(about, loaded.licence))
        if (precision, format) == ("fp32", written):
            graphs[written] = about, path
        found[precision, format] = load_exported(path)
    return found


def _require_known(precision: str, format: str) -> None:
    if format not in EXPORT_FORMATS:
        raise TspruneError(f"format must be one of {', '.join(EXPORT_FORMATS)}, not {format!r}")
    if format != TORCH_EXPORT:
        _require_packages()
    if format == "openvino":
        require_openvino()
    if precision not in EXPORT_PRECISIONS:
        raise TspruneError(f"precision must be one of {', '.join(EXPORT_PRECISIONS)}, not {precision!r}")


def _require_computed(precision: str, format: str) -> None:
    """TspruneError for a precision that the runtime of a format does not compute in."""
    if precision == "bf16" and format == "onnx":
        raise TspruneError("ONNX Runtime has no bf16; export with --format openvino or torch-export")
    if precision == "int8" and format == TORCH_EXPORT:
        raise TspruneError("torch-export has no int8; export with --format onnx or openvino")


def _in_form(
    folder: Path, about: Description, precision: str, format: str, calibration: Suite | None
) -> Description:
    """Rewrites the graphs in fp32 of a folder, ONNX or torch's, in another precision and format."""
    if format == TORCH_EXPORT:
        return _rounded(folder, about, precision, calibration)
    graphs = [name for name in (about.graph, about.step) if (folder / name).exists()]
    if precision == "int8":
        about = quantised(folder, about, calibration)
    if precision == "bf16":
        about, graphs = in_bf16(folder, about, calibration), []
    if precision == "fp16":
        about = dataclasses.replace(about, precision=precision)
        for name in graphs:
            store_weights_in_half(folder / name)
    if format == "openvino":
        for name in graphs:
            in_openvino_format(folder / name, half=precision == "fp16")
    return dataclasses.replace(about, graph_format=format)


def _rounded(folder: Path, about: Description, precision: str, calibration: Suite | None) -> Description:
    """Rewrites the programs of torch in a folder in another precision."""
    if precision == "bf16":
        return in_bf16(folder, about, calibration)
    if precision == "fp16":
        for name in (about.graph, about.step):
            if (folder / name).exists():
                program_in_half(folder / name)
    return dataclasses.replace(about, precision=precision)


def _copied(about: Description, source: Path, target: Path) -> Description:
    """Copies the graph of an export in fp32; the other files in its description are written anew."""
    for name in about.files:
        if name != SELF_TEST:
            shutil.copy(source / name, target / name)
    return dataclasses.replace(about, files={})


def _trace(model: Forecaster, stated: int | None, length: int) -> tuple[Description, tuple[Traced, ...]]:
    """The graph in fp32, and its description as yet without files and distance."""
    with _in_float32(model) as exact:
        draws = isinstance(exact, SamplingForecaster)
        graph = graph_of(exact, stated if draws else stated or exact.readout_horizon)
        axis = exact.anatomy.stacks[0].time
        sampling = getattr(graph, "sampling", None)
        horizon = stated or (exact.readout_horizon if sampling is None else sampling.steps)
        span = 1 if axis is None or sampling is not None else axis.span
        future = int(getattr(graph, "future_span", 0))
        if sampling is not None:
            traced = traced_programs(graph, length)
        else:
            traced = traced_pass(graph, span, length, -(-horizon // future) if future else 0)
        origin = exact.origin
        about = Description(
            name=exact.name,
            family=exact.family,
            precision="fp32",
            horizon=horizon,
            context_length=length,
            span=span,
            future_span=future,
            fills_gaps=bool(getattr(graph, "fills_gaps", False)),
            marks_padding=bool(getattr(graph, "marks_padding", False)),
            levels=tuple(float(level) for level in exact.forecast([np.arange(9.0)], 1).levels),
            parameters=exact.parameter_count,
            distance=0.0,
            sampling=None if sampling is None else sampling.stated(),
            removed=() if origin is None else tuple(part.address for part in origin.components),
            original="" if origin is None else origin.name,
        )
    return about, traced


def _complete(model: Forecaster, folder: Path, about: Description) -> Description:
    """Adds the self-test, its distance and the files' hashes; TspruneError if fp32 is not exact."""
    from safetensors.numpy import save_file

    length = min(about.context_length, 512)
    with _in_float32(model) as exact:
        contexts = [values[-about.context_length :] for values in probe_series(length)]
        expected = exact.forecast(contexts, about.horizon).quantiles
    save_file(stored(expected, length), folder / SELF_TEST)
    found = open_export(folder, about, about.name)
    distance = measured_distance(found, expected, length)
    if about.precision == "fp32" and not distance <= FP32_DISTANCE:
        raise TspruneError(
            f"{about.name}: the graph's forecasts are off by {distance:.1e} of the largest value; "
            "nothing was written (report this with the versions of torch and of the runtime)"
        )
    files = sorted(path for path in folder.iterdir() if path.name != EXPORT)
    return dataclasses.replace(
        about,
        distance=float(distance),
        files={path.name: sha256_of(path) for path in files},
        made_with={name: known for name in _PACKAGES if (known := _version(name))},
    )


def graph_of(model: Forecaster, horizon: int | None) -> nn.Module:
    """The graph of `model` as a torch module (see `Family.graph`); TspruneError if its family has none."""
    code = FAMILIES[model.family].graph
    if not code:
        have = ", ".join(family.title for family in FAMILIES.values() if family.graph)
        title = FAMILIES[model.family].title
        raise TspruneError(f"{model.name}: {title} is not exported yet; families that are: {have}")
    graph: nn.Module = resolve_name(code)(model, horizon)
    return graph.eval()


@contextlib.contextmanager
def _in_float32(model: Forecaster) -> Iterator[Forecaster]:
    """`model`, or a copy of it, on the CPU in float32."""
    exact = model
    if model.dtype != torch.float32 or model.device.type != "cpu":
        exact = model_copy(model)
        exact.to(torch.device("cpu"), torch.float32)
    with torch.no_grad():
        yield exact


def _require_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise TspruneError(f"export needs {name}; install it with: {install('onnx')}") from None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
