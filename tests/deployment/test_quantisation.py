"""int8: smaller weights, forecasts that stay near, and products in fp32 where the loss asks for it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.suites import small_suite
from tsprune.deployment import Exported, quantisation
from tsprune.deployment.description import GRAPH, Description
from tsprune.deployment.graph_sessions import graph_session
from tsprune.deployment.quantisation import quantised, weight_products
from tsprune.errors import TspruneError
from tsprune.models import Forecaster

Pair = tuple[Forecaster, Exported]


def copied(found: Exported, folder: Path) -> tuple[Path, Description]:
    folder.mkdir()
    shutil.copy(Path(found.name) / GRAPH, folder / GRAPH)
    return folder, found.description


def test_weights_are_smaller_and_forecasts_near(one_pass: Pair, tmp_path: Path) -> None:
    model, found = one_pass
    folder, about = copied(found, tmp_path / "int8")
    before, products = (folder / GRAPH).stat().st_size, weight_products(folder / GRAPH)
    after = quantised(folder, about, small_suite())
    assert (after.precision, [path.name for path in folder.iterdir()]) == ("int8", [GRAPH])
    assert set(after.kept_fp32) < set(products)
    assert (folder / GRAPH).stat().st_size < before
    assert set(weight_products(folder / GRAPH)) == set(after.kept_fp32)
    stored = [numpy_helper.to_array(one) for one in onnx.load(folder / GRAPH).graph.initializer]
    assert (
        max(int(np.abs(one.astype(int)).max()) for one in stored if one.dtype == np.int8 and one.ndim) <= 64
    )
    history = [np.sin(np.arange(40) / 3).astype(np.float32)]
    rounded = Exported("int8", after, graph_session(folder / GRAPH), 0).forecast(history, 2).quantiles
    exact = model.forecast(history, 2).quantiles
    assert 0 < np.abs(rounded - exact).max() < 0.5 * np.abs(exact).max()


def test_sums_of_the_largest_products_are_right_on_every_processor(tmp_path: Path) -> None:
    """Without VNNI, 255 * 127 + 255 * 127 would be cut off at 32,767: half of the right sum."""
    weights = numpy_helper.from_array(np.ones((64, 8), np.float32), "weights")
    product = helper.make_node("MatMul", ["x", "weights"], ["y"], "product")
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", n])
        for name, n in (("x", 64), ("y", 8))
    )
    graph = helper.make_graph([product], "ones", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "fp32.onnx")
    quantisation._quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [])
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    (found,) = session.run(None, {"x": np.ones((5, 64), np.float32)})
    np.testing.assert_allclose(found, 64.0, rtol=0.01)


def test_where_no_loss_is_allowed_the_least_is_taken(
    one_pass: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.4, 0.1, 0.3, 0.2])
    monkeypatch.setattr(quantisation, "_loss", lambda *_: next(losses))
    folder, about = copied(one_pass[1], tmp_path / "int8")
    products = weight_products(folder / GRAPH)
    kept = quantised(folder, about, small_suite()).kept_fp32
    assert kept[-3:] == tuple(products)[-3:]  # the second candidate: the readout, in every pass
    assert {products[name] for name in kept} == {products[name] for name in tuple(products)[-3:]}


def test_windows_beyond_the_horizon_cannot_measure(one_pass: Pair, tmp_path: Path) -> None:
    folder, about = copied(one_pass[1], tmp_path / "int8")
    with pytest.raises(TspruneError, match="export with a longer horizon"):
        quantised(folder, dataclasses.replace(about, horizon=1), small_suite())
