"""`dtype="auto"`: bfloat16 only where the device has instructions for it and the model is faster so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

import tsprune
from tests.suites import small_suite, tiny
from tests.tiny import TINY, few_samples
from tsprune.errors import TspruneError
from tsprune.models import Forecast, Forecaster, fastest
from tsprune.models.chronos_bolt import ChronosBolt
from tsprune.report.words import precision_of
from tsprune.studies.one_model import study_model
from tsprune.studies.study_settings import StudySettings


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    TINY["tiny-chronos-bolt"](tmp_path / "model")
    return tmp_path / "model"


def test_without_instructions_nothing_is_tried(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "native_bfloat16", lambda device: False)
    model = tsprune.load(checkpoint, device="cpu", dtype="auto")
    assert model.dtype == torch.float32
    contexts = [np.arange(30.0)]
    expected = tsprune.load(checkpoint, device="cpu").forecast(contexts, 5).quantiles
    np.testing.assert_array_equal(model.forecast(contexts, 5).quantiles, expected)


@pytest.mark.parametrize(("slow", "kept"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_the_faster_one_is_kept(
    slow: torch.dtype, kept: torch.dtype, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast = ChronosBolt.forecast

    def waiting(self: Forecaster, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        time.sleep(0.2 if self.dtype == slow else 0)
        return forecast(self, contexts, horizon)  # type: ignore[arg-type]

    monkeypatch.setattr(fastest, "native_bfloat16", lambda device: True)
    monkeypatch.setattr(ChronosBolt, "forecast", waiting)
    assert tsprune.load(checkpoint, device="cpu", dtype="auto").dtype == kept


def test_a_model_in_memory_stays_as_it_is(checkpoint: Path) -> None:
    upstream = tsprune.load_pipeline(checkpoint, device="cpu", dtype="bfloat16")
    assert tsprune.load(upstream, dtype="auto").dtype == torch.bfloat16
    with pytest.raises(TspruneError, match="one of: float32, bfloat16, float16, auto"):
        tsprune.load(checkpoint, dtype="fp8")


def test_a_study_states_the_precision_and_the_change_by_it(checkpoint: Path) -> None:
    settings = StudySettings(small_suite(), explain=False, device="cpu", dtype="bfloat16")
    found = study_model(settings.loaded(str(checkpoint)), settings, lambda *_: None).study
    assert found.dtype == "bfloat16"
    plain = tsprune.evaluate(tsprune.load(checkpoint, device="cpu"), small_suite())
    ratio = found.mase_ratio / tsprune.evaluation.geometric_mean_ratios(plain)["MASE"]
    assert found.precision["MASE"].value == pytest.approx(ratio - 1, abs=1e-9)
    assert found.precision["MASE"].value != 0
    assert precision_of(found).startswith("bfloat16 (MASE ")
    assert precision_of(found).endswith(" against float32)")


def test_a_model_in_float32_is_compared_with_nothing() -> None:
    settings = StudySettings(small_suite(), explain=False, device="cpu")
    found = study_model(tiny("tiny-timesfm"), settings, lambda *_: None).study
    assert (found.dtype, found.precision, precision_of(found)) == ("float32", {}, "float32")


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_forecasts_in_the_precisions_it_can_be_loaded_in(
    name: str, dtype: str, tmp_path: Path
) -> None:
    TINY[name](tmp_path)
    contexts = [5 + 3 * np.sin(np.arange(40.0)), np.cos(np.arange(33.0))]
    plain = few_samples(tsprune.load(tmp_path, device="cpu"))
    if not plain.half:
        with pytest.raises(TspruneError, match="load it in float32"):
            tsprune.load(tmp_path, device="cpu", dtype=dtype)
        return
    model = few_samples(tsprune.load(tmp_path, device="cpu", dtype=dtype))
    found = model.forecast(contexts, 5).quantiles
    assert model.dtype == getattr(torch, dtype)
    assert np.isfinite(found).all()
    # the network's output, as equal tokens are often drawn
    with torch.no_grad():
        ours, theirs = (each.teacher_forced(contexts).float() for each in (model, plain))
    assert not torch.equal(ours, theirs)
    assert torch.allclose(ours, theirs, rtol=0, atol=0.1 * float(theirs.abs().max()))
