"""The sweep engine: replay changes nothing, and changes are what the formula says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from tests.suites import configuration, shared_suite, small_suite, tiny
from tests.sweeping import Counting, assert_equal, some_ablations
from tests.tiny import pristine
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import CRPS, MASE, Truth, WindowStatistics, evaluate, prepare
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecast, Forecaster
from tsprune.sweeps import CLEAN, SweepResult, run
from tsprune.sweeps.sweep_result import WindowScores

MODELS = ["tiny-chronos-bolt", "tiny-timesfm"]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    loaded = tiny(request.param)
    with pristine(loaded):
        yield loaded


def test_replay_changes_nothing(model: Forecaster) -> None:
    ablations = some_ablations(model)
    results = [
        run(model, shared_suite(), ablations, batch_size=3, replay=replay, keep=[CLEAN, ablations[0]])
        for replay in (True, False)
    ]
    assert_equal(*results)
    for key, forecast in results[0].forecasts.items():
        np.testing.assert_array_equal(forecast.quantiles, results[1].forecasts[key].quantiles)


def test_batches_keep_every_score_with_its_window(model: Forecaster) -> None:
    ablations = some_ablations(model)[:2]
    one, many = (run(model, shared_suite(), ablations, batch_size=size) for size in (1, 64))
    assert_equal(one, many, exactly=False)


def test_clean_is_no_change(model: Forecaster) -> None:
    result = run(model, small_suite(), [])
    change = result.change(CLEAN)
    assert (change["MASE"], change["CRPS"], change.spearman) == (0, 0, 0)
    assert list(result.scores) == [CLEAN]


def test_every_window_is_scored_or_skipped(model: Forecaster) -> None:
    suite = small_suite()
    result = run(model, suite, [])
    assert result.rows["first/D/short"].tolist() == [0, 1, 2, 3, 4]
    assert result.rows["second/D/short"].tolist() == [0, 2, 3]
    assert ("second/D/short, window 1", "no history before the window") in result.skipped
    assert set(suite.skipped) <= set(result.skipped)


def test_equal_ablations_are_forecast_once() -> None:
    counting = Counting(tiny("tiny-timesfm"))
    head = Ablation(counting.anatomy.select("stack.0.self.head.0"))
    again = Ablation(counting.anatomy.select("stack.0.*.head.0"))
    seen: list[tuple[int, int]] = []
    run(
        counting,
        small_suite(),
        [head, again, head, Ablation(())],
        progress=lambda _stage, done, total: seen.append((done, total)),
    )
    # two configurations of one batch each, without ablation and with one
    assert counting.calls == 4
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_configurations_of_one_horizon_share_forecasts() -> None:
    counting, suite = Counting(tiny("tiny-timesfm")), shared_suite()
    head = Ablation(counting.anatomy.select("stack.0.self.head.0"))
    result = run(counting, suite, [head], batch_size=4)
    assert counting.calls == 2 * (2 + 1)  # 5 + 3 windows of horizon 5, and 3 of horizon 11
    assert {name: rows.tolist() for name, rows in result.rows.items()} == {
        "first/D/short": [0, 1, 2, 3, 4],
        "second/D/short": [0, 2, 3],
        "third/D/short": [0, 1, 2],
    }


def test_horizons_of_one_pass_share_forecasts_and_are_scored_apart() -> None:
    model = tiny("tiny-timesfm")
    same_lengths = [configuration(f"{h}/D/short", [40, 40, 40], horizon=h) for h in (5, 11)]
    suite = Suite("two", tuple(same_lengths))
    head = Ablation(model.anatomy.select("stack.0.self.head.0"))
    counting = Counting(model)
    counting.prefix_steps = model.prefix_steps
    together = run(counting, suite, [head], keep=[head], batch_size=6)
    assert counting.calls == 2
    apart = run(Counting(model), suite, [head], keep=[head], batch_size=6)
    assert_equal(together, apart, exactly=False)
    for (_, name), forecast in together.forecasts.items():
        horizon = int(name.split("/")[0])
        assert forecast.quantiles.shape == (3, 9, horizon)
        np.testing.assert_allclose(forecast.quantiles, apart.forecasts[head, name].quantiles, rtol=1e-4)


def test_the_clean_scores_are_those_of_evaluate(model: Forecaster) -> None:
    suite = shared_suite()
    frame = evaluate(model, suite, batch_size=3).frame.set_index("configuration")
    scores = run(model, suite, [], batch_size=3).scores[CLEAN]
    assert set(frame.index) == set(scores)
    for name, one in scores.items():
        assert MASE.of(one.statistics) == frame.loc[name, "MASE"]
        assert CRPS.of(one.statistics) == frame.loc[name, "CRPS"]


def test_kept_forecasts_are_the_models_own(model: Forecaster) -> None:
    (first, _) = small_suite().configurations
    suite = Suite("one", (first,))
    result = run(model, suite, some_ablations(model)[:1], keep=[CLEAN], batch_size=64)
    assert [key[0] for key in result.forecasts] == [CLEAN]
    order = np.argsort([-min(len(x), model.context_length) for x in first.contexts], kind="stable")
    direct = model.forecast([first.contexts[row][-model.context_length :] for row in order], first.horizon)
    kept = result.forecasts[CLEAN, first.name].quantiles
    np.testing.assert_array_equal(kept[order], direct.quantiles)
    expected = Truth(first.targets, prepare(first).season_errors).statistics(Forecast(kept))
    statistics = result.scores[CLEAN][first.name].statistics
    np.testing.assert_array_equal(statistics.scaled_error_sum, expected.scaled_error_sum)
    assert len(set(statistics.scaled_error_sum)) == len(first)


# --- what the model cannot answer ----------------------------------------------------------------


def test_windows_answered_with_nan_are_skipped_with_a_reason() -> None:
    model = Counting(tiny("tiny-timesfm"), lost=60)
    suite = small_suite()
    head = Ablation(model.anatomy.select("stack.1.self.head.0"))
    result = run(model, suite, [head], keep=[CLEAN], batch_size=2)
    assert result.rows["first/D/short"].tolist() == [0, 2, 4]
    assert result.rows["second/D/short"].tolist() == [0, 2]
    reason = "the forecast is not finite"
    expected = [("first/D/short", 1), ("first/D/short", 3), ("second/D/short", 3)]
    assert [s for s in result.skipped if s[1] == reason] == [
        (f"{n}, window {r}", reason) for n, r in expected
    ]
    assert math.isfinite(result.change(head)["MASE"])
    assert len(result.forecasts[CLEAN, "first/D/short"].quantiles) == 3


def test_a_suite_that_cannot_be_forecast_is_an_error() -> None:
    model = tiny("tiny-timesfm")
    with pytest.raises(TspruneError, match="no windows"):
        run(model, Suite("empty", ()), [])
    unknown = configuration("x/D/short", [30, 20], horizon=3)
    for context in unknown.contexts:
        context[:] = np.nan
    with pytest.raises(TspruneError, match=r"no window of unknown could be forecast: .*no observed value"):
        run(model, Suite("unknown", (unknown,)), [])


# --- the formula ---------------------------------------------------------------------------------


def statistics(errors: list[float], losses: list[float]) -> WindowStatistics:
    """Windows of one step whose scaled errors and quantile losses are given; |y| is 1."""
    ones = np.ones(len(errors))
    fields = {field.name: ones for field in dataclasses.fields(WindowStatistics)}
    fields |= {"scaled_error_sum": np.array(errors), "quantile_loss_sum": np.array(losses)}
    return WindowStatistics(**fields)


def scores(errors: list[float], losses: list[float], distances: list[float]) -> WindowScores:
    return WindowScores(statistics(errors, losses), np.array(distances))


@pytest.fixture
def handmade() -> tuple[SweepResult, Ablation]:
    """Windows 0, 1, 3 of "a" (window 2 was skipped) and 0, 1 of "b"."""
    ablation = Ablation((tiny("tiny-timesfm").anatomy.components("mlp")[0],))
    clean = {"a": scores([1, 2, 3], [1, 1, 1], [0, 0, 0]), "b": scores([4, 4], [0, 0], [0, 0])}
    ablated = {"a": scores([2, 4, 6], [1, 2, 1.5], [1, 0, 0.5]), "b": scores([2, 6], [1, 1], [0, 2])}
    result = SweepResult(
        rows={"a": np.array([0, 1, 3]), "b": np.array([0, 1])},
        scores={CLEAN: clean, ablation: ablated},
        forecasts={},
        skipped=(),
    )
    return result, ablation


def test_change_by_hand(handmade: tuple[SweepResult, Ablation]) -> None:
    result, ablation = handmade
    change = result.change(ablation)
    # MASE doubles on "a" and stays on "b"; CRPS is 1.5 times on "a", undefined on "b"
    assert change["MASE"] == pytest.approx(math.sqrt(2) - 1)
    assert change["CRPS"] == pytest.approx(0.5)
    assert change.spearman == pytest.approx(3.5 / 5)


def test_change_on_masks_by_hand(handmade: tuple[SweepResult, Ablation]) -> None:
    result, ablation = handmade
    masks = {"a": np.array([True, False, False, True]), "b": np.array([False, True])}
    change = result.change(ablation, masks)
    assert change["MASE"] == pytest.approx(math.sqrt((2 + 6) / (1 + 3) * (6 / 4)) - 1)
    assert change["CRPS"] == pytest.approx(2.5 / 2 - 1)
    assert change.spearman == pytest.approx(3.5 / 3)
    only_a = {"a": np.ones(4, bool), "b": np.zeros(2, bool)}
    assert result.change(ablation, only_a)["MASE"] == pytest.approx(1)
    nothing = {name: np.zeros_like(mask) for name, mask in masks.items()}
    assert math.isnan(result.change(ablation, nothing)["MASE"])
    assert math.isnan(result.change(ablation, nothing).spearman)


def test_a_perfect_ablated_forecast_is_a_change_of_minus_one(
    handmade: tuple[SweepResult, Ablation],
) -> None:
    result, ablation = handmade
    perfect = {name: scores([0] * n, [0] * n, [0] * n) for name, n in (("a", 3), ("b", 2))}
    result = dataclasses.replace(result, scores={CLEAN: result.scores[CLEAN], ablation: perfect})
    assert result.change(ablation)["MASE"] == -1
