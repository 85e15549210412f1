"""int8 and bf16: networks that are rounded, with their measured loss; int8 may leave products in fp32."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsprune.choices import TORCH_EXPORT
from tsprune.deployment.description import GRAPH, Description
from tsprune.deployment.exported import Exported
from tsprune.deployment.graph_files import in_openvino_format
from tsprune.deployment.graph_sessions import graph_session
from tsprune.errors import TspruneError
from tsprune.evaluation import evaluate, geometric_mean_ratios

if TYPE_CHECKING:
    from tsprune.data import Suite

MOST_LOSS = 0.005  # relative, of MASE and of CRPS: less is within what windows of another day would give
_WINDOWS = 120
_ENDS = 3  # products of the embedding, and of the readout: a residual block has three


def quantised(folder: Path, about: Description, calibration: Suite | None = None) -> Description:
    """Replaces the graph in `folder` by one in int8.

    Weights have 7 bits, so that no processor overflows and the graph is as good on every one. The embedding
    and the readout round most. Candidates keep neither, either, or both in fp32, fewest first; the first
    that loses at most `MOST_LOSS` on the calibration windows is taken, else the one that loses least.
    """
    suite = _within(_windows() if calibration is None else calibration, about)
    exact = _scores(Exported(about.name, about, graph_session(folder / GRAPH), 0), suite)
    products = weight_products(folder / GRAPH)
    weights = list(products.values())
    first, last = (
        [name for name in products if products[name] in end] for end in (weights[:_ENDS], weights[-_ENDS:])
    )
    candidates = [[], last, first, [*first, *last]]  # of all passes, which share their weights
    losses: list[float] = []
    for number, kept in enumerate(candidates):
        path = folder / f"int8-{number}.onnx"
        _quantise(folder / GRAPH, path, kept)
        losses.append(_loss(Exported(about.name, about, graph_session(path), 0), suite, exact))
        if losses[-1] <= MOST_LOSS:
            break
    chosen = int(np.argmin(losses)) if losses[-1] > MOST_LOSS else len(losses) - 1
    (folder / f"int8-{chosen}.onnx").replace(folder / GRAPH)
    for path in folder.iterdir():
        if path.name != GRAPH:  # the other candidates, and weights beside the graph in fp32
            path.unlink()
    stay = tuple(candidates[chosen])
    return dataclasses.replace(about, precision="int8", kept_fp32=stay, loss=float(losses[chosen]))


def in_bf16(folder: Path, about: Description, calibration: Suite | None = None) -> Description:
    """Rewrites the graph in `folder` in bfloat16: OpenVINO's network, or a torch program's products."""
    suite = _within(_windows() if calibration is None else calibration, about)
    path = folder / about.graph
    exact = _scores(Exported(about.name, about, graph_session(path), 0), suite)
    if about.graph_format == TORCH_EXPORT:
        from tsprune.deployment.program_rounding import program_in_bf16  # imports torch

        program_in_bf16(path)
    else:
        path = in_openvino_format(path, half=True)
    loss = _loss(Exported(about.name, about, graph_session(path, bf16=True), 0), suite, exact)
    return dataclasses.replace(about, precision="bf16", loss=float(loss))


def weight_products(graph: Path) -> dict[str, str]:
    """Names of the nodes that multiply by a weight, in the order in which they run, and of their weights."""
    import onnx

    loaded = onnx.load(graph, load_external_data=False).graph
    weights = {tensor.name for tensor in loaded.initializer if len(tensor.dims) == 2}
    return {
        node.name: node.input[1]
        for node in loaded.node
        if node.op_type in ("MatMul", "Gemm") and len(node.input) > 1 and node.input[1] in weights
    }


def _products_by_head(graph: Path) -> list[str]:
    """Names of products with a weight of several matrices, for whose channels int8 is not defined."""
    import onnx

    loaded = onnx.load(graph, load_external_data=False).graph
    stacked = {tensor.name for tensor in loaded.initializer if len(tensor.dims) > 2}
    return [node.name for node in loaded.node if node.op_type == "MatMul" and stacked & {*node.input}]


def _windows() -> Suite:
    from tsprune.data import pocket

    return pocket().sample(_WINDOWS, seed=0)


def _within(suite: Suite, about: Description) -> Suite:
    """The configurations whose horizon the graph reaches."""
    fitting = tuple(part for part in suite.configurations if part.horizon <= about.horizon)
    if not fitting:
        raise TspruneError(
            f"the loss is measured on windows, of which none has a horizon of up to {about.horizon} steps; "
            "export with a longer horizon"
        )
    return dataclasses.replace(suite, configurations=fitting)


def _scores(model: Exported, suite: Suite) -> dict[str, float]:
    """MASE and CRPS relative to Seasonal Naive, geometric means over configurations."""
    ratios = geometric_mean_ratios(evaluate(model, suite))
    return {name: ratios[name] for name in ("MASE", "CRPS")}


def _loss(model: Exported, suite: Suite, exact: dict[str, float]) -> float:
    """The larger of the relative changes of MASE and CRPS."""
    found = _scores(model, suite)
    return max(found[name] / exact[name] for name in exact) - 1


def _quantise(source: Path, target: Path, kept: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises on models that come from elsewhere
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_dynamic(
                source,
                target,
                weight_type=QuantType.QInt8,
                per_channel=True,
                # processors without VNNI add two products in 16 bits: weights of 8 bits overflow there
                reduce_range=True,
                nodes_to_exclude=[*kept, *_products_by_head(source)],
            )
    finally:
        logging.disable(before)
