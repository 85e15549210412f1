"""`export`: a model as one graph, in a folder with a description, a self-test and a card."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from tsprune.arguments import checked
from tsprune.choices import EXPORT_FORMATS, EXPORT_PRECISIONS
from tsprune.deployment.card import card
from tsprune.deployment.description import (
    GRAPH,
    SELF_TEST,
    STEP,
    Description,
    sha256_of,
)
from tsprune.deployment.exported import Exported, load_exported, open_export
from tsprune.deployment.graph_files import in_openvino_format, store_weights_in_half
from tsprune.deployment.graph_sessions import require_openvino
from tsprune.deployment.quantisation import in_bf16, quantised
from tsprune.deployment.self_test import FP32_DISTANCE, measured_distance, probe_series, stored
from tsprune.errors import TspruneError, one_line
from tsprune.extras import install
from tsprune.files import as_json, user_path
from tsprune.folders import whole_directory
from tsprune.models import FAMILIES, Forecaster, load
from tsprune.models.contexts import checked_horizon
from tsprune.models.copies import model_copy
from tsprune.models.forecaster import SamplingForecaster
from tsprune.models.graph_ops import MOST_ROWS
from tsprune.models.locations import EXPORT

if TYPE_CHECKING:
    from tsprune.data import Suite

_OPSET = 20
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
    calibration: Suite | None = None,
) -> Exported:
    """Writes `model`, pruned or not, as one graph from contexts to quantiles, and loads it.

    Scaling, patches, masks, gaps and quantiles are in the graph, for any number of series of any length.
    The folder has the graph, tsprune-export.json, a self-test (`verify_export`) and a card.

    horizon : the most steps to forecast; None: those of one pass of the network
    context_length : history longer than this is cut off in front; None: the model's
    precision : "fp32"; "fp16": weights are stored in 16 bits and computed with in 32; "bf16": OpenVINO
        computes the network in bfloat16 where the processor can, and scaling in fp32; or "int8": the weights
        of products in 8 bits, inputs quantised as they come
    format : "onnx", for ONNX Runtime, or "openvino"
    calibration : windows on which the loss of int8 and bf16 is measured, and which products of int8 stay in
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
        calibration=calibration,
    )
    return found[precision]


def exports(
    model: Forecaster | str | Path,
    folders: Mapping[str, str | Path],
    *,
    horizon: int | None = None,
    context_length: int | None = None,
    format: str = "onnx",
    calibration: Suite | None = None,
) -> dict[str, Exported]:
    """`export` in several precisions, whose graph is traced once.

    folders : by precision
    """
    _require_packages()
    if format not in EXPORT_FORMATS:
        raise TspruneError(f"format must be one of {', '.join(EXPORT_FORMATS)}, not {format!r}")
    if format == "openvino":
        require_openvino()
    if unknown := [name for name in folders if name not in EXPORT_PRECISIONS]:
        raise TspruneError(f"precision must be one of {', '.join(EXPORT_PRECISIONS)}, not {unknown[0]!r}")
    loaded = load(model, device="cpu") if isinstance(model, str | Path) else model
    loaded.require_finite_weights()
    if {"bf16", "int8"} & set(folders) and isinstance(loaded, SamplingForecaster):
        raise TspruneError(f"{loaded.name} draws paths; it is exported in fp32 or fp16")
    if "bf16" in folders and format != "openvino":
        raise TspruneError("bf16 is computed by OpenVINO; export with --format openvino")
    steps = None if horizon is None else checked_horizon(horizon)
    length = loaded.context_length
    if context_length is not None:
        length = min(length, context_length)
    found: dict[str, Exported] = {}
    graph: tuple[Description, Path] | None = None
    for precision in (name for name in EXPORT_PRECISIONS if name in folders):  # fp32 first
        path = user_path(folders[precision])
        with whole_directory(path) as aside:
            about = _write(loaded, aside, steps, length) if graph is None else _copied(*graph, aside)
            about = _in_form(aside, about, precision, format, calibration)
            about = _complete(loaded, aside, about)
            (aside / EXPORT).write_text(as_json(about.as_object()))
            (aside / "README.md").write_text(card(about, loaded.licence))
        if (precision, format) == ("fp32", "onnx"):
            graph = about, path
        found[precision] = load_exported(path)
    return found


def _in_form(
    folder: Path, about: Description, precision: str, format: str, calibration: Suite | None
) -> Description:
    """Rewrites the ONNX graphs in fp32 of a folder in another precision and format."""
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


def _copied(about: Description, source: Path, target: Path) -> Description:
    """Copies the graph of an export in fp32; the other files in its description are written anew."""
    for name in about.files:
        if name != SELF_TEST:
            shutil.copy(source / name, target / name)
    return about


def _write(model: Forecaster, folder: Path, stated: int | None, length: int) -> Description:
    """Writes the graph in fp32, and describes it as yet without files and distance."""
    with _in_float32(model) as exact:
        draws = isinstance(exact, SamplingForecaster)
        graph = graph_of(exact, stated if draws else stated or exact.readout_horizon)
        axis = exact.anatomy.stacks[0].time
        sampling = getattr(graph, "sampling", None)
        horizon = stated or (exact.readout_horizon if sampling is None else sampling.steps)
        span = 1 if axis is None or sampling is not None else axis.span
        future = int(getattr(graph, "future_span", 0))
        if sampling is not None:
            programs_to_onnx(graph, folder, length)
        else:
            to_onnx(graph, folder / GRAPH, span, length, -(-horizon // future) if future else 0)
        origin = exact.origin
        return Description(
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
            "nothing was written (report this with the versions of torch and onnxruntime)"
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


def to_onnx(graph: nn.Module, path: Path, span: int, length: int, future: int) -> None:
    """Writes a graph [B, T] -> [B, Q, H] for every B, and for T up to `length` in steps of `span`.

    future : the most numbers in its second input; 0: it has none

    Weights beyond 2 GB are in a file beside it. Raises TspruneError if torch cannot express the graph.
    """
    example = [torch.linspace(0, 1, 6 * span).reshape(2, 3 * span).sin()]
    patches = max(4, -(-length // span))
    rows, columns = Dim("batch", min=1, max=MOST_ROWS), span * Dim("patches", min=1, max=patches)
    sizes: dict[str, Any] = {"context": {0: rows, 1: columns}}
    if future:
        example.append(torch.zeros(min(future, 3)))
        sizes["future"] = {0: Dim("future", min=1, max=future)} if future > 1 else None
    _converted(graph, path, dict(zip(sizes, example, strict=True)), sizes, ["quantiles"])


def programs_to_onnx(graph: Any, folder: Path, length: int) -> None:
    """Writes the graphs of a model that draws paths, of which the second one, if there is one, is of a step.

    graph : its `programs` are `GraphProgram`s

    Raises TspruneError if torch cannot express them.
    """
    for name, program in zip((GRAPH, STEP), graph.programs(length), strict=False):
        dims = {size: Dim(size, min=least, max=most) for size, (least, most) in program.limits.items()}
        sizes = {
            key: {axis: dims[size] for axis, size in one.sizes.items()} or None
            for key, one in program.inputs.items()
        }
        example = {key: one.example for key, one in program.inputs.items()}
        _converted(program.module, folder / name, example, sizes, list(program.outputs))


def _converted(
    graph: nn.Module, path: Path, example: dict[str, Tensor], sizes: dict[str, Any], outputs: list[str]
) -> None:
    """Writes a module as ONNX; sizes : by input, the dimensions that may change."""
    try:
        with _silent():
            program = torch.export.export(
                graph, tuple(example.values()), dynamic_shapes=tuple(sizes.values()), strict=False
            )
            found = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(example),
                output_names=outputs,
                opset_version=_OPSET,
                verbose=False,
            )
    except Exception as error:  # of many classes of torch's and onnxscript's own
        raise TspruneError(f"torch cannot export this model to ONNX ({one_line(error, 300)})") from error
    assert found is not None
    found.save(path, external_data=_bytes(graph) > 2**31 - 2**24)


def _bytes(graph: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*graph.parameters(), *graph.buffers()))


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
