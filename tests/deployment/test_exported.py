"""An exported model forecasts as its model does, alone and in any batch, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tsprune
from tests.suites import small_suite
from tsprune.deployment import Exported, verify_export
from tsprune.deployment.description import is_export
from tsprune.deployment.self_test import FP32_DISTANCE, quantile_distance
from tsprune.errors import TspruneError
from tsprune.models import Forecaster

Pair = tuple[Forecaster, Exported]


def awkward(length: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Series with gaps, of unlike lengths up to `length`, longer ones than any context among them."""
    rng = np.random.default_rng(3)
    series = [(rng.normal(size=length - 7 * i).cumsum() + 5).astype(np.float32) for i in range(5)]
    series[1][-20:-11] = np.nan
    series[2][:9] = np.nan
    series[3][-2:] = np.nan
    return series


def test_forecasts_are_the_models(exported: Pair) -> None:
    model, found = exported
    for length in (40, model.context_length, model.context_length + 100):
        for horizon in (1, found.horizon):
            series = awkward(length)
            expected = model.forecast(series, horizon)
            actual = found.forecast(series, horizon)
            assert actual.levels == pytest.approx(expected.levels)
            assert quantile_distance(actual.quantiles, expected.quantiles) < FP32_DISTANCE


def test_a_gap_over_the_cut_is_filled_from_before_it(exported: Pair) -> None:
    model, found = exported
    series = awkward(model.context_length + 30)[:1]
    series[0][20:45] = np.nan  # the history that is kept begins inside of it
    expected = model.forecast(series, 3).quantiles
    assert quantile_distance(found.forecast(series, 3).quantiles, expected) < FP32_DISTANCE


def test_any_number_of_series_and_any_batch(exported: Pair) -> None:
    _, found = exported
    series = awkward(60) * 20  # more than are forecast together
    together = found.forecast(series, 2).quantiles
    alone = np.concatenate([found.forecast([one], 2).quantiles for one in series[:5]])
    assert quantile_distance(together[:5], alone) < FP32_DISTANCE
    np.testing.assert_allclose(together[95:], alone, rtol=1e-4, atol=1e-4)


def test_it_can_be_evaluated(exported: Pair) -> None:
    model, found = exported
    suite = small_suite()
    ours, theirs = (tsprune.evaluate(one, suite).frame for one in (found, model))
    theirs = theirs[theirs["configuration"].isin(ours["configuration"])]  # one horizon is beyond a tiny pass
    assert len(ours)
    for metric in ("MASE", "CRPS"):
        np.testing.assert_allclose(ours[metric], theirs[metric], rtol=1e-4)


def test_the_folder_describes_and_tests_itself(exported: Pair, tmp_path: Path) -> None:
    model, found = exported
    about = found.description
    assert (about.family, about.parameters) == (model.family, model.parameter_count)
    assert about.distance < FP32_DISTANCE
    assert bool(about.removed) == (model.origin is not None)
    assert verify_export(found.name).holds
    assert is_export(found.name)
    card = (Path(found.name) / "README.md").read_text()
    assert model.licence in card
    assert f"{model.parameter_count:,}" in card


def test_what_it_refuses(exported: Pair) -> None:
    model, found = exported
    with pytest.raises(
        TspruneError, match=f"for up to {found.horizon} steps, not {found.horizon + 1}; export"
    ):
        found.forecast([[1.0, 2.0]], found.horizon + 1)
    for wrong in ([], [[]], [[np.nan]], ["text"], 3):
        with pytest.raises(TspruneError) as ours:
            found.forecast(wrong, 1)  # type: ignore[arg-type]
        with pytest.raises(TspruneError) as theirs:
            model.forecast(wrong, 1)  # type: ignore[arg-type]
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(TspruneError, match="is an exported model, without components"):
        tsprune.load(found.name)


ALONE = """
import json, sys
import numpy as np
import tsprune
model = tsprune.load_exported(sys.argv[1])
rng = np.random.default_rng(3)
found = model.forecast([rng.normal(size=50).astype(np.float32)], 2)
heavy = {"torch", "transformers", "chronos", "timesfm", "pandas", "scipy", "onnx"} & set(sys.modules)
print(json.dumps({"quantiles": found.quantiles.tolist(), "imported": sorted(heavy)}))
"""


def test_a_fresh_process_needs_neither_torch_nor_upstream(exported: Pair) -> None:
    _, found = exported
    done = subprocess.run(
        [sys.executable, "-c", ALONE, found.name], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    # the inverse distribution functions of Moirai's mixture
    assert result["imported"] == (["scipy"] if found.family == "moirai" else [])
    series = np.random.default_rng(3).normal(size=50).astype(np.float32)
    expected = found.forecast([series], 2).quantiles
    np.testing.assert_array_equal(np.array(result["quantiles"], np.float32), expected)
