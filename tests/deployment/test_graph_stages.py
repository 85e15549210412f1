"""A graph for OpenVINO in two stages: what is scaled, and the network, which may be rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tsprune.deployment.graph_sessions import graph_session
from tsprune.deployment.graph_stages import scaling_and_network
from tsprune.errors import TspruneError

openvino = pytest.importorskip("openvino")
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def written(folder: Path, *, product: bool = True) -> Path:
    """(x - mean of x) W + mean of x; or without the product."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["scaled"]),
        helper.make_node("MatMul" if product else "Identity", ["scaled", "w"][: 1 + product], ["y"]),
        helper.make_node("Add", ["y", "mean"], ["out"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", 4), ("out", 3 if product else 4))
    ]
    constants = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(np.array([1]), "axis")]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    path = folder / "model.xml"
    openvino.save_model(openvino.Core().read_model(str(folder / "model.onnx")), str(path), False)
    return path


def test_scaling_is_exact_and_only_the_product_is_rounded(tmp_path: Path) -> None:
    """1000.123 has no bfloat16: rounded before its mean is taken off, it would be 1000."""
    path = written(tmp_path)
    first, second = scaling_and_network(openvino.Core().read_model(str(path)))
    kinds = [{node.get_type_name() for node in stage.get_ordered_ops()} for stage in (first, second)]
    assert "ReduceMean" in kinds[0] - kinds[1]
    assert "MatMul" in kinds[1] - kinds[0]
    given = np.array([[1000.123, 999.3, 1000.2, 1000.1], [3, 2, 1, 0.5]], np.float32)
    expected = (given - given.mean(1, keepdims=True)) @ WEIGHTS + given.mean(1, keepdims=True)
    for bf16, limit in ((False, 2e-4), (True, 2e-2)):
        (found,) = graph_session(path, 1, bf16=bf16).run(None, {"x": given})
        assert np.abs(found - expected).max() < limit


def test_a_graph_without_a_product_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, product=False)
    with pytest.raises(TspruneError, match="multiplies by no weights"):
        graph_session(path, 1, bf16=True)
