"""Many rows are computed in parts, one a thread; few rows, and what has no axis of rows, at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tsprune.deployment.graph_sessions import graph_session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
ROWS = np.random.default_rng(0).normal(size=(41, 3)).astype(np.float32)
SHIFT = np.array([1, 2], np.float32)


def written(folder: Path, *, reduced: bool = False) -> Path:
    """x - mean of x over the rows + sum of shift, so that a result tells which rows were computed together.

    reduced : the mean is another output, which has no rows
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("ReduceSum", ["shift"], ["sum"], keepdims=0),
        helper.make_node("Add", ["centred", "sum"], ["out"]),
    ]
    shapes: dict[str, list[str | int]] = {
        "x": ["rows", 3],
        "shift": ["ahead"],
        "out": ["rows", 3],
        "mean": [1, 3],
    }
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in shapes}
    outputs = [values["out"], *([values["mean"]] * reduced)]
    constants = [numpy_helper.from_array(np.array([0]), "axis")]
    graph = helper.make_graph(nodes, "graph", [values["x"], values["shift"]], outputs, constants)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def run(path: Path, rows: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    return graph_session(path, threads).run(None, {"x": rows, "shift": SHIFT})[0]


def test_every_thread_computes_a_part_of_many_rows(tmp_path: Path) -> None:
    path = written(tmp_path)
    expected = [run(path, part, 1) for part in (ROWS[:20], ROWS[20:])]
    np.testing.assert_array_equal(run(path, ROWS, 2), np.concatenate(expected))
    np.testing.assert_allclose(np.concatenate(expected)[:20].mean(0), SHIFT.sum(), rtol=1e-6)


def test_few_rows_are_computed_at_once(tmp_path: Path) -> None:
    path = written(tmp_path)
    for rows, threads in ((ROWS[:31], 2), (ROWS, 3), (ROWS, 1)):
        np.testing.assert_allclose(run(path, rows, threads), rows - rows.mean(0) + 3, rtol=0, atol=1e-6)


def test_an_output_without_rows_is_not_taken_apart(tmp_path: Path) -> None:
    found = run(written(tmp_path, reduced=True), ROWS, 2)
    np.testing.assert_allclose(found, ROWS - ROWS.mean(0) + 3, rtol=0, atol=1e-6)


def test_another_graph_in_its_place_is_not_loaded(tmp_path: Path) -> None:
    path = written(tmp_path)
    session = graph_session(path, 2)
    path.write_bytes(b"something else")
    (found,) = session.run(None, {"x": ROWS, "shift": SHIFT})
    np.testing.assert_allclose(found, ROWS - ROWS.mean(0) + 3, rtol=0, atol=1e-6)
