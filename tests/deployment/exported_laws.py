"""Laws of an export in any format. A module of tests imports them and has a fixture `exported`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.deployment.conftest import Pair
from tsprune.deployment import verify_export
from tsprune.deployment.description import is_export
from tsprune.deployment.self_test import FP32_DISTANCE, quantile_distance


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
