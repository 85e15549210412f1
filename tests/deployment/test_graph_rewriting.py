"""Graphs in forms that runtimes have fast kernels for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from transformers.models.t5.modeling_t5 import T5LayerNorm

from tests.exporting import exported_once
from tsprune.deployment.description import GRAPH
from tsprune.deployment.graph_rewriting import divide_by_roots

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# (operation, inputs, output): a product with 1 / sqrt(a) in either place, one used twice, and others
NODES = [
    ("Sqrt", ["a"], "root"),
    ("Reciprocal", ["root"], "inverse"),
    ("Mul", ["b", "inverse"], "first"),
    ("Mul", ["inverse", "first"], "second"),
    ("Reciprocal", ["b"], "other"),
    ("Mul", ["other", "second"], "third"),
    ("Sqrt", ["b"], "root of b"),
    ("Reciprocal", ["root of b"], "inverse of b"),
    ("Mul", ["inverse of b", "a"], "fourth"),
]


def graph(path: Path) -> Path:
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node(kind, given, [result]) for kind, given, result in NODES]
    names = ("a", "b"), ("third", "fourth", "inverse of b")
    ins, outs = ([value(name, onnx.TensorProto.FLOAT, [4]) for name in part] for part in names)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "products", ins, outs),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(made)
    onnx.save(made, path)
    return path


def run(path: Path) -> list[np.ndarray]:
    given = {"a": [1, 2, 3, 4], "b": [5, 0.5, 7, 8]}
    session = onnxruntime.InferenceSession(path)
    return list(session.run(None, {name: np.array(values, np.float32) for name, values in given.items()}))


def test_products_with_roots_become_quotients(tmp_path: Path) -> None:
    before = run(graph(tmp_path / "before.onnx"))
    model = ir.load(tmp_path / "before.onnx")
    assert divide_by_roots(model) == 3
    assert divide_by_roots(model) == 0
    ir.save(model, tmp_path / "after.onnx")
    onnx.checker.check_model(tmp_path / "after.onnx", full_check=True)
    for one, other in zip(before, run(tmp_path / "after.onnx"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    kinds = Counter(node.op_type for node in model.graph)
    # of the inverses one is left: it is an output of the graph
    assert kinds == {"Sqrt": 2, "Div": 3, "Reciprocal": 2, "Mul": 1}


def test_every_norm_of_a_bolt_is_one_kernel(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    model, found = exported_once(tmp_path_factory, "pruned chronos-bolt")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(Path(found.name) / GRAPH, options)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    norms = sum(isinstance(part, T5LayerNorm) for part in model.module.modules())
    passes = -(-found.horizon // model.readout_horizon)
    assert kinds["SimplifiedLayerNormalization"] + kinds["SkipSimplifiedLayerNormalization"] == passes * norms
