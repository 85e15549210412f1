"""Bootstrap intervals: worked examples, laws, and coverage on a population that is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsprune.evaluation.intervals import (
    Change,
    Paired,
    Resampled,
    Scored,
    change_interval,
    holm,
    resample,
    simultaneous,
)
from tsprune.evaluation.metrics import WindowStatistics

FIELDS = [field.name for field in dataclasses.fields(WindowStatistics)]


def statistics(errors: NDArray[np.float64]) -> WindowStatistics:
    """Windows of one point each: MASE is the mean of `errors`, CRPS half of it."""
    values = {name: np.ones(len(errors)) for name in FIELDS}
    values |= {"scaled_error_sum": errors, "quantile_loss_sum": errors / 2}
    return WindowStatistics(**values)


def paired(before: list[float], after: list[float], series: list[int] | None = None) -> Paired:
    owners = np.arange(len(before)) if series is None else np.array(series)
    return Paired(statistics(np.array(before)), statistics(np.array(after)), owners)


def test_a_change_common_to_all_has_no_width() -> None:
    pairs = [paired([1.0, 2.0, 3.0], [1.1, 2.2, 3.3]), paired([5.0, 7.0], [5.5, 7.7])]
    for metric in ("MASE", "CRPS"):
        change = change_interval(pairs, metric)
        assert [change.value, change.low, change.high] == pytest.approx([0.1] * 3)
        assert change.differs
        assert change.p_value < 0.01
        assert change.units == 5


def test_two_series_by_hand() -> None:
    # draws of two series: both are the first (1/4), the second (1/4), or one of each (1/2)
    change = change_interval([paired([1.0, 1.0], [1.0, 3.0])], "MASE", level=0.9, draws=4000)
    assert change.value == pytest.approx(1.0)  # (1 + 3) / (1 + 1) - 1
    assert (change.low, change.high) == pytest.approx((0.0, 2.0))
    # log(1 + change) is 0, log 2 or log 3; t with one degree of freedom is Cauchy's distribution
    logs = np.log([1, 2, 2, 3])
    t = np.log(2) / (np.sqrt(2) * logs.std())
    assert change.p_value == pytest.approx(1 - 2 * np.arctan(t) / np.pi, abs=0.01)
    assert not change.differs


def test_the_value_is_the_change_of_the_geometric_mean() -> None:
    pairs = [paired([1.0, 1.0], [2.0, 2.0]), paired([4.0], [2.0])]
    change = change_interval(pairs, "MASE")
    assert change.value == pytest.approx(0.0)
    assert (change.low, change.high) == pytest.approx((-0.5, 1.0))  # either configuration twice


def test_windows_of_a_series_are_drawn_together() -> None:
    # within a series the errors cancel, so whole series never change
    after = [1.5, 0.5, 1.5, 0.5]
    together = change_interval([paired([1.0] * 4, after, [0, 0, 1, 1])], "MASE")
    assert (together.low, together.high) == pytest.approx((0.0, 0.0))
    apart = change_interval([paired([1.0] * 4, after)], "MASE")
    assert apart.low < -0.2
    assert apart.high > 0.2


def test_a_single_series_is_drawn_by_its_windows() -> None:
    change = change_interval([paired([1.0] * 4, [1.5, 0.5, 1.5, 0.5], [7, 7, 7, 7])], "MASE")
    assert change.low < 0 < change.high
    assert change.units == 4


def test_what_cannot_be_compared_does_not_count() -> None:
    good, zero, empty = paired([1.0, 2.0], [2.0, 4.0]), paired([0.0], [1.0]), paired([], [])
    assert change_interval([good, zero, empty], "MASE").value == pytest.approx(1.0)
    nothing = change_interval([zero, empty], "MASE")
    assert np.isnan([nothing.value, nothing.low, nothing.high, nothing.p_value]).all()
    assert not nothing.differs


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=8), st.integers(0, 5))
def test_exchanging_before_and_after_inverts_the_change(errors: list[float], seed: int) -> None:
    other = [error * factor for error, factor in zip(errors, np.linspace(0.5, 2, len(errors)), strict=True)]
    forth = change_interval([paired(errors, other)], "MASE", seed=seed)
    back = change_interval([paired(other, errors)], "MASE", seed=seed)
    assert (1 + forth.value) * (1 + back.value) == pytest.approx(1)
    assert (1 + forth.low) * (1 + back.high) == pytest.approx(1, rel=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        before = rng.uniform(1, 2, 40)
        after = before * rng.lognormal(0.1, 0.3, 40)
        truth = np.exp(0.1 + 0.3**2 / 2) - 1
        change = change_interval([paired(before.tolist(), after.tolist())], "MASE", draws=400)
        covered += change.low <= truth <= change.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(("between", "within"), [(0.1, 0.05), (0.02, 0.1)])
def test_the_interval_covers_the_truth_of_configurations_that_differ(between: float, within: float) -> None:
    """Effects differ between configurations and series: the spread of both is in the interval."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(4):
        scored = []
        for size in (20, 5, 9, 30, 4, 12, 7, 18, 6, 15):
            before = rng.lognormal(0, 0.3, size)
            effects = 0.05 + between * rng.standard_normal((200, 1))
            noise = within * rng.standard_normal((200, size)) - within**2 / 2
            after = [statistics(one) for one in before * np.exp(effects + noise)]
            scored.append(Scored(statistics(before), after, np.arange(size)))
        low, high = resample(scored, "MASE", draws=500).limits()
        covered.append(np.mean((low <= np.exp(0.05) - 1) & (np.exp(0.05) - 1 <= high)))
    # on the safe side where series differ more than configurations do
    assert 0.93 <= np.mean(covered) <= (0.97 if between > within else 1)


def test_all_ablations_at_once_are_each_of_them_in_a_loop() -> None:
    """The draws written out: configurations, series within each, sums, ratios, geometric mean."""
    rng = np.random.default_rng(3)
    owners = (np.array([0, 0, 1, 2, 2]), np.array([4, 4, 4]), np.array([0, 1]))
    chosen = (np.array([True, True, True, False, True]), np.ones(3, bool), np.ones(2, bool))
    before = [rng.uniform(1, 2, len(o)) for o in owners]
    after = [rng.uniform(1, 3, (4, len(o))) for o in owners]
    scored = [
        Scored(statistics(b), [statistics(one) for one in a], o, c)
        for b, a, o, c in zip(before, after, owners, chosen, strict=True)
    ]
    found = resample(scored, "MASE", draws=50, seed=7)
    draws = np.random.default_rng(7)
    places = draws.integers(0, 3, (50, 3))
    units = [[[0, 1], [2], [4]], [[0], [1], [2]], [[0], [1]]]  # windows; the second has one series only
    counts = [draws.multinomial(len(u), np.full(len(u), 1 / len(u)), 50) for u in units]
    for ablation in range(4):
        for draw in range(50):
            logs = []
            for place, number in enumerate(places[draw]):
                weights = counts[number][(draw + place) % 50]
                windows = [
                    w for unit, times in zip(units[number], weights, strict=True) for w in unit * times
                ]
                logs.append(np.log(after[number][ablation, windows].mean() / before[number][windows].mean()))
            assert found.draws[draw, ablation] == pytest.approx(np.exp(np.mean(logs)) - 1)
        whole = [
            np.log(a[ablation, c].mean() / b[c].mean()) for a, b, c in zip(after, before, chosen, strict=True)
        ]
        assert found.values[ablation] == pytest.approx(np.exp(np.mean(whole)) - 1)
    assert (found.size, found.units) == (3, 3 + 3 + 2)


def test_draws_made_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = [Scored(statistics(np.ones(9)), [statistics(np.linspace(1, 2, 9))], np.arange(9))]
    whole = resample(scored, "MASE", draws=100)
    monkeypatch.setattr("tsprune.evaluation.intervals._AT_ONCE", 30)
    np.testing.assert_array_equal(resample(scored, "MASE", draws=100).draws, whole.draws)


def test_an_ablation_without_scores_is_nan_and_spoils_no_other() -> None:
    one = statistics(np.array([1.0, 2.0, 4.0]))
    other = statistics(np.array([2.0, 2.0, 5.0]))
    found = resample([Scored(one, [None, other], np.arange(3))], "MASE")
    alone = resample([Scored(one, [other], np.arange(3))], "MASE")
    assert np.isnan([found.values[0], *(limit[0] for limit in found.limits())]).all()
    assert found.change(1) == alone.change()


def test_one_window_has_no_interval() -> None:
    change = change_interval([paired([1.0], [2.0])], "MASE")
    assert change.value == pytest.approx(1.0)
    assert np.isnan([change.low, change.high, change.p_value]).all()
    assert not change.differs
    assert str(change) == "+100.0 % [no interval]"


def hand(draws: list[list[float]], size: int = 15) -> Resampled:
    columns = np.array(draws, dtype=np.float64).T
    return Resampled(columns.mean(axis=0), columns, size, 99)


def test_differences_are_taken_draw_by_draw() -> None:
    a, b = hand([[0.1, 0.2, 0.3]]), hand([[0.0, 0.1, 0.2]])
    difference = a.minus(b)
    np.testing.assert_allclose(difference.draws[:, 0], 0.1)
    change = difference.change()
    assert (change.value, change.low, change.high) == pytest.approx((0.1, 0.1, 0.1))
    assert change.p_value == 0.0
    assert a.minus(a).change().p_value == 1.0


def test_the_median_over_ablations_is_taken_draw_by_draw() -> None:
    three = hand([[1.0, 0.0], [2.0, 5.0], [3.0, 6.0]])
    assert three.median().draws[:, 0].tolist() == [2.0, 5.0]
    assert three.median().values.tolist() == [3.5]  # of 0.5, 3.5, 4.5


def test_the_mean_of_random_draws_knows_that_there_could_have_been_others() -> None:
    columns = [[value] * 4000 for value in (0.0, 1.0, 2.0, 3.0)]
    mean = hand(columns).mean_of_drawn()
    assert mean.values.tolist() == [1.5]
    # the series say nothing here: all spread is that of a mean of four
    assert mean.draws.std() == pytest.approx(np.std([0, 1, 2, 3]) / 2, rel=0.05)


def test_more_intervals_at_once_are_wider() -> None:
    pairs = [paired([1.0, 2.0, 3.0], [1.2, 1.9, 3.3]), paired([1.0, 2.0], [1.5, 1.9])]
    one, five = (change_interval(pairs, "MASE", level=simultaneous(count)) for count in (1, 5))
    assert five.low <= one.low <= one.value <= one.high <= five.high
    assert simultaneous(1) == pytest.approx(0.95)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(holm([np.nan, 0.02]), [np.nan, 0.02])
    assert len(holm([])) == 0


def test_a_change_reads_as_percent() -> None:
    assert str(Change(0.0312, -0.01, 0.07, 0.2, 9)) == "+3.1 % [-1.0, +7.0]"
