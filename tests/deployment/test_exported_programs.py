"""Every family as a program of torch.export forecasts as its model, without upstream and unpickling."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tsprune
from tests.deployment.conftest import ONE_PASS, SAMPLERS, Pair
from tests.deployment.exported_laws import (  # noqa: F401  (of the fixture below)
    test_a_gap_over_the_cut_is_filled_from_before_it,
    test_any_number_of_series_and_any_batch,
    test_forecasts_are_the_models,
    test_the_folder_describes_and_tests_itself,
)
from tests.exporting import exported_once
from tests.suites import small_suite
from tsprune.choices import TORCH_EXPORT
from tsprune.deployment import verify_export
from tsprune.deployment.self_test import FP32_DISTANCE, quantile_distance
from tsprune.errors import TspruneError

SERIES = [np.sin(np.arange(60) / 5).cumsum(), 1e6 + np.arange(40.0), np.array([1.0, np.nan, 2.0] * 9)]


# the other way round than `exported` of other modules, so that two processes do not wait for the same export
@pytest.fixture(scope="module", params=[*ONE_PASS, *SAMPLERS][::-1])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model and its program."""
    pytest.importorskip("onnxruntime")  # one trace is written in both formats
    pytest.importorskip("onnxscript")
    return exported_once(tmp_path_factory, request.param, TORCH_EXPORT)


@pytest.fixture(scope="module")
def bolt(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return exported_once(tmp_path_factory, "pruned chronos-bolt", TORCH_EXPORT)


def copied(found: tsprune.Exported, folder: Path) -> Path:
    return Path(shutil.copytree(found.name, folder))


def test_files_and_card(exported: Pair) -> None:
    _, found = exported
    about = found.description
    assert (about.graph_format, about.graph) == (TORCH_EXPORT, "model.json")
    names = {"model.json", "model.safetensors", "selftest.safetensors"}
    stepwise = {"step.json", "step.safetensors"} if about.family in ("chronos-t5", "toto") else set()
    assert set(about.files) == names | stepwise
    assert "a program of torch.export (fp32)" in (Path(found.name) / "README.md").read_text()


def test_a_history_of_one_patch(bolt: Pair) -> None:
    model, found = bolt
    for series in ([[1.0, 3.0]], [[2.0], [1.0, 5.0, 2.0]]):
        expected = model.forecast(series, 2).quantiles
        assert quantile_distance(found.forecast(series, 2).quantiles, expected) < FP32_DISTANCE


ALONE = """
import json, pickle, sys
import numpy as np
import torch
import tsprune

def refused(*_, **__):
    raise SystemExit("something was unpickled")

pickle.load = pickle.loads = torch.load = refused
sys.addaudithook(lambda event, _: refused() if event == "pickle.find_class" else None)
model = tsprune.load_exported(sys.argv[1], device="cpu")
rng = np.random.default_rng(3)
found = model.forecast([rng.normal(size=50).astype(np.float32)], 2)
upstream = {"transformers", "chronos", "timesfm", "timesfm3", "toto", "toto2", "t0", "timestral", "uni2ts"}
others = {"pandas", "onnx", "onnxruntime", "openvino"}
heavy = (upstream | others) & set(sys.modules)
adapters = sorted(name for name in sys.modules if name.startswith("tsprune.models.") and "_graph" in name)
print(json.dumps({"quantiles": found.quantiles.tolist(), "imported": sorted(heavy), "adapters": adapters}))
"""


@pytest.mark.parametrize("name", ["pruned chronos-bolt", "pruned chronos-t5"])
def test_a_fresh_process_imports_no_upstream_and_unpickles_nothing(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("onnxscript")
    _, found = exported_once(tmp_path_factory, name, TORCH_EXPORT)
    command = [sys.executable, "-c", ALONE, found.name]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (result["imported"], result["adapters"]) == ([], [])
    series = np.random.default_rng(3).normal(size=50).astype(np.float32)
    expected = found.forecast([series], 2).quantiles
    np.testing.assert_allclose(np.array(result["quantiles"], np.float32), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["chronos-bolt", "timesfm"])
def test_bundled_models_in_every_precision(name: str, tmp_path: Path) -> None:
    """fp32 as its model; 16 bits of the weights change it by rounding, bfloat16 products by more."""
    from tsprune.deployment.conversion import exports

    model = tsprune.load(f"bundled:{name}", device="cpu")
    folders = {precision: tmp_path / precision for precision in ("fp32", "fp16", "bf16")}
    found = exports(model, folders, format=TORCH_EXPORT, suite=small_suite(), horizon=16)
    expected = model.forecast(SERIES, 16).quantiles
    distances = {
        key: quantile_distance(one.forecast(SERIES, 16).quantiles, expected) for key, one in found.items()
    }
    assert distances["fp32"] < FP32_DISTANCE
    # the bundled weights were in 16 bits before they were loaded
    assert distances["fp16"] < 1e-3 < distances["bf16"] < 0.1
    sizes = {key: one.weight_bytes for key, one in found.items()}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["bf16"] < 0.6 * sizes["fp32"]
    assert all(verify_export(path).holds for path in folders.values())
    loss = found["bf16"].description.loss
    assert loss is not None
    assert abs(loss) < 0.05
    scores = [tsprune.evaluate(one, small_suite()).frame for one in (found["fp32"], model)]
    np.testing.assert_allclose(scores[0]["CRPS"], scores[1]["CRPS"], rtol=1e-4)


def test_int8_is_refused(bolt: Pair, tmp_path: Path) -> None:
    with pytest.raises(TspruneError, match="torch-export has no int8; export with --format onnx or openvino"):
        tsprune.export(bolt[0], tmp_path / "out", format=TORCH_EXPORT, precision="int8")
    assert not (tmp_path / "out").exists()


def test_a_changed_file_is_refused_before_it_is_read(bolt: Pair, tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        folder = copied(bolt[1], tmp_path / name)
        with (folder / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(TspruneError, match=f"{name} has another SHA-256 than when it was exported"):
            tsprune.load_exported(folder)
        assert verify_export(folder).wrong == (name,)
    for name in ("model.json", "model.safetensors"):
        folder = copied(bolt[1], tmp_path / f"without-{name}")
        (folder / name).unlink()
        with pytest.raises(TspruneError, match=f"{name}"):
            tsprune.load_exported(folder)


@pytest.mark.parametrize("name", ["../model.json", "/etc/passwd", "a/b"])
def test_files_elsewhere_are_refused(bolt: Pair, tmp_path: Path, name: str) -> None:
    folder = copied(bolt[1], tmp_path / "out")
    path = folder / "tsprune-export.json"
    content = json.loads(path.read_text())
    content["files"][name] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(TspruneError, match="files are not names in this folder"):
        tsprune.load_exported(folder)
    del content["files"][name], content["files"]["model.safetensors"]
    path.write_text(json.dumps(content))
    with pytest.raises(TspruneError, match="is not in the description's list of files"):
        tsprune.load_exported(folder)


def test_other_formats_have_no_device(bolt: Pair, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, onnx = exported_once(tmp_path_factory, "pruned chronos-bolt")
    with pytest.raises(TspruneError, match="an export in onnx runs on the CPU, not on cuda"):
        tsprune.load_exported(onnx.name, device="cuda")
    with pytest.raises(TspruneError, match="no device"):
        tsprune.load_exported(bolt[1].name, device="nowhere")
