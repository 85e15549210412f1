"""Exports whose weights have 16 bits, and in OpenVINO's format, forecast as the ONNX graph in fp32."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.deployment.conftest import Pair
from tests.suites import small_suite
from tsprune.deployment.description import GRAPH, STEP
from tsprune.deployment.exported import Exported, open_export
from tsprune.deployment.graph_files import in_openvino_format, store_weights_in_half
from tsprune.deployment.graph_sessions import graph_session
from tsprune.deployment.quantisation import in_bf16
from tsprune.errors import TspruneError

SERIES = [np.sin(np.arange(60) / 5).cumsum(), 1e6 + np.arange(40.0), np.array([1.0, np.nan, 2.0] * 9)]


def copied(found: Exported, folder: Path) -> list[Path]:
    graphs = [name for name in (GRAPH, STEP) if (Path(found.name) / name).exists()]
    return [Path(shutil.copy(Path(found.name) / name, folder / name)) for name in graphs]


def forecast(found: Exported) -> np.ndarray:
    return found.forecast(SERIES, 3).quantiles


def test_openvino_forecasts_as_onnx(exported: Pair, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    _, found = exported
    paths = [in_openvino_format(path, half=False) for path in copied(found, tmp_path)]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted([".bin", ".xml"] * len(paths))
    about = dataclasses.replace(found.description, graph_format="openvino")
    again = open_export(tmp_path, about, "openvino", threads=1)
    largest = np.abs(forecast(found)).max((1, 2), keepdims=True)
    np.testing.assert_allclose(forecast(again) / largest, forecast(found) / largest, atol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_half_of_the_bytes_compute_in_fp32(one_pass: Pair, tmp_path: Path, form: str) -> None:
    """Rounded weights in a graph in fp32 are the same function: nothing else is rounded."""
    if form == "openvino":
        pytest.importorskip("openvino")
    _, found = one_pass
    (path,) = copied(found, tmp_path)
    whole, expected = path.stat().st_size, forecast(found)
    if form == "onnx":
        store_weights_in_half(path)
        onnx.checker.check_model(onnx.load(path))
        assert path.stat().st_size < whole
    else:
        path = in_openvino_format(path, half=True)
    about = dataclasses.replace(found.description, graph_format=form)
    rounded = forecast(open_export(tmp_path, about, form, threads=1))
    assert not np.array_equal(rounded, expected)
    largest = np.abs(expected).max((1, 2), keepdims=True)
    np.testing.assert_allclose(rounded / largest, expected / largest, atol=5e-3)


def test_bf16_rounds_the_network_alone(one_pass: Pair, tmp_path: Path) -> None:
    """Also of series far from 0, which bfloat16 cannot hold to better than 0.4 %."""
    pytest.importorskip("openvino")
    _, found = one_pass
    shutil.copy(Path(found.name) / GRAPH, tmp_path / GRAPH)
    about = in_bf16(tmp_path, found.description, small_suite())
    assert (about.precision, about.loss is not None) == ("bf16", True)
    rounded = open_export(tmp_path, dataclasses.replace(about, graph_format="openvino"), "bf16", threads=1)
    series = [np.sin(np.arange(60) / 5) + 1000]
    expected, actual = (one.forecast(series, 3).quantiles for one in (found, rounded))
    # of the distance from the series; rounded before it is scaled, a value would be off by up to 4
    limit = max(0.1, 0.03 * np.abs(expected - 1000).max())
    assert np.abs(actual - expected).max() < limit


def test_values_beyond_half_precision_stay(tmp_path: Path) -> None:
    """1e5 has no fp16; a small tensor is left alone; 1/3 is rounded to fp16, by hand 0.33325195."""
    large, small, plain = np.full((32, 32), 1e5), np.full(4, 1 / 3), np.full((32, 32), 1 / 3)
    named = {"large": large, "small": small, "plain": plain}
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", name], [f"with_{name}"], name) for name in named],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [
            helper.make_tensor_value_info(f"with_{n}", TensorProto.FLOAT, list(v.shape))
            for n, v in named.items()
        ],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in named.items()],
    )
    path = tmp_path / "sums.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    store_weights_in_half(path)
    sums = graph_session(path, 1).run(None, {"x": np.zeros(1, np.float32)})
    assert [float(values.flat[0]) for values in sums] == [1e5, np.float32(1 / 3), 0.333251953125]


def test_a_missing_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(TspruneError, match="OpenVINO is not installed; install it with: pip install"):
        graph_session(tmp_path / "model.xml")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TspruneError, match="ONNX Runtime is not installed"):
        graph_session(tmp_path / "model.onnx")


def test_a_damaged_graph_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    for name in ("model.xml", "model.onnx"):
        (tmp_path / name).write_text("nothing of the kind")
        with pytest.raises(TspruneError, match="cannot read it") as caught:
            graph_session(tmp_path / name)
        assert "\n" not in str(caught.value)
