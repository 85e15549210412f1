"""An exported model that draws paths draws those of its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tsprune
from tsprune.deployment import Exported
from tsprune.deployment.exported import ExportedSampler
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, SamplingForecaster

Pair = tuple[Forecaster, Exported]
SERIES = [np.sin(np.arange(length) / 3).astype(np.float32) * 5 + 2 for length in (40, 30, 55)]


def test_paths_are_those_of_the_model(sampler: Pair) -> None:
    model, found = sampler
    assert isinstance(model, SamplingForecaster)
    assert isinstance(found, ExportedSampler)
    assert (found.samples, found.seed) == (model.samples, model.seed)
    samples, seed = model.samples, model.seed
    try:
        for model.samples, model.seed in ((4, 0), (7, 3)):
            found.samples, found.seed = model.samples, model.seed
            for horizon in (3, found.horizon):  # in a pass, and beyond it
                expected, actual = (one.forecast(SERIES, horizon) for one in (model, found))
                assert expected.samples is not None
                assert actual.samples is not None
                np.testing.assert_allclose(actual.samples, expected.samples, rtol=1e-4, atol=1e-4)
                np.testing.assert_array_equal(actual.point, actual.samples.mean(axis=1))
    finally:
        model.samples = found.samples = samples
        model.seed = found.seed = seed


def test_samples_and_seeds_that_cannot_be(sampler: Pair) -> None:
    found = sampler[1]
    assert isinstance(found, ExportedSampler)
    for name, value in (("samples", 0), ("samples", 1.5), ("seed", -1)):
        with pytest.raises(TspruneError, match=name):
            setattr(found, name, value)


def test_the_usual_horizon_is_that_of_a_pass(
    sampler: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Copied:  # the graphs do not depend on the horizon
        def write(self, folder: Path, _: str) -> None:
            for source in Path(sampler[1].name).glob("*.onnx"):
                shutil.copy(source, folder / source.name)

    monkeypatch.setattr("tsprune.deployment.conversion.traced_programs", lambda *_: (Copied(),))
    found = tsprune.export(sampler[0], tmp_path / "out")
    assert sampler[1].description.sampling is not None
    assert found.horizon == sampler[1].description.sampling["steps"] > 1


def test_a_step_that_is_missing_is_one_line(sampler: Pair, tmp_path: Path) -> None:
    if sampler[1].family in ("moirai", "moirai-moe"):
        assert not (Path(sampler[1].name) / "step.onnx").exists()  # one graph is all that is run
        return
    folder = tmp_path / "out"
    shutil.copytree(sampler[1].name, folder)
    (folder / "step.onnx").unlink()
    with pytest.raises(TspruneError, match=r"step\.onnx: ONNX Runtime cannot read it"):
        tsprune.load_exported(folder)
    path = folder / "tsprune-export.json"
    content = json.loads(path.read_text())
    del content["files"]["step.onnx"]
    path.write_text(json.dumps(content))
    with pytest.raises(TspruneError, match=r"step\.onnx is missing"):
        tsprune.load_exported(folder).forecast(SERIES, sampler[1].horizon)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_are_refused(sampler: Pair, tmp_path: Path, precision: str) -> None:
    with pytest.raises(TspruneError, match="draws paths; it is exported in fp32"):
        tsprune.export(sampler[0], tmp_path / "out", precision=precision)
    assert not (tmp_path / "out").exists()


def test_a_damaged_description_is_one_line(sampler: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(sampler[1].name, folder)
    path = folder / "tsprune-export.json"
    content = json.loads(path.read_text())
    damages: list[tuple[str, object]] = [
        ("samples", 0),
        ("steps", "x"),
        ("kind", "other"),
        ("kind", []),
        ("new", 1),
    ]
    damages += [("tokens", 2), ("low", "x"), ("ends", 1), ("temperature", 0), ("components", ["x"])]
    damages += [("components", []), ("components", 3), ("scaler", "x"), ("patch", 0), ("scales", 1)]
    damages = [damage for damage in damages if damage[0] in content["sampling"] or damage[0] == "new"]
    for name, value in damages:
        changed = content | {"sampling": content["sampling"] | {name: value}}
        path.write_text(json.dumps(changed))
        with pytest.raises(TspruneError, match="is damaged"):
            tsprune.load_exported(folder)
