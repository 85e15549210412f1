"""The explorer's engine: its forecasts, losses and views are those of the rest of the package."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.suites import shared_suite, tiny
from tsprune.choices import MODES
from tsprune.data import from_frame
from tsprune.errors import TspruneError
from tsprune.evaluation import evaluate, geometric_mean_ratios, spearman_distance
from tsprune.explain.attention_maps import ROW_STATISTICS
from tsprune.explain.forecast_traits import parroting
from tsprune.explorer import Session
from tsprune.explorer.chosen_series import ChosenSeries, drawn_series, window_name, window_of
from tsprune.explorer.few_windows import TOKEN_STEPS, TOKEN_WINDOWS
from tsprune.explorer.map_scores import MapScores
from tsprune.explorer.model_description import description
from tsprune.explorer.session import SHOWN_LEVELS, finished
from tsprune.hooks.ablation import Ablation
from tsprune.scores import stable_ranks


def first_window(session: Session) -> ChosenSeries:
    name = session.suite.configurations[0].name
    return window_of(session.suite, name, 0, session.model.context_length)


def some_cells(session: Session, *places: int) -> tuple[tsprune.anatomy.Component, ...]:
    every = list(session.cells.values())
    return tuple(every[place] for place in places)


@pytest.mark.parametrize("name", ["tiny-chronos-bolt", "tiny-chronos-t5", "tiny-toto"])
def test_forecasts_are_those_of_ablate_to_the_last_bit(name: str) -> None:
    session = Session(tiny(name), shared_suite())
    series = first_window(session)
    session.series_view(series)
    off = some_cells(session, 1, 3, -1)
    for mode in MODES:
        found = session.without(series, Ablation(off, mode, seed=3))
        with tsprune.ablate(session.model, off, mode=mode, seed=3):
            plain = session.model.forecast([series.context.copy()], series.horizon)
        np.testing.assert_array_equal(found.quantiles, plain.at(SHOWN_LEVELS)[0])
    again = session.model.forecast([series.context.copy()], series.horizon)
    np.testing.assert_array_equal(session.series_view(series).clean.quantiles, again.at(SHOWN_LEVELS)[0])
    quick = session.quick_steps(series)
    assert quick == (min(series.horizon, 24) if name == "tiny-chronos-t5" else series.horizon)


def test_the_numbers_of_one_forecast(session: Session) -> None:
    series = first_window(session)
    whole = session.series_view(series).clean
    found = session.without(series, Ablation(some_cells(session, 0, 2)))
    before, after = (np.asarray(one.quantiles[1], np.float64) for one in (whole, found))
    assert series.target is not None
    assert found.moved == pytest.approx(np.abs(after - before).mean() / series.season_error)
    assert found.mase == pytest.approx(np.abs(after - series.target).mean() / series.season_error)
    assert found.spearman == spearman_distance(after, before)[0]
    assert found.parroting == parroting(after, series.context)
    assert (whole.moved, whole.spearman) == (0, 0)
    assert session.without(series, Ablation(())).moved == 0


@pytest.mark.parametrize("name", ["tiny-chronos-bolt", "tiny-chronos-t5"])
def test_losses_are_those_of_an_evaluation(name: str) -> None:
    session = Session(tiny(name), shared_suite())
    off = some_cells(session, 0, -1)
    found = finished(session.losses(Ablation(off)))
    few = session.few.suite
    before = geometric_mean_ratios(evaluate(session.model, few))
    with tsprune.ablate(session.model, off):
        after = geometric_mean_ratios(evaluate(session.model, few))
    for metric, one in found.metrics.items():
        assert one.before == pytest.approx(before[metric], rel=1e-12)
        assert one.after == pytest.approx(after[metric], rel=1e-12)
        assert one.change.value == pytest.approx(after[metric] / before[metric] - 1, rel=1e-9)
        assert one.change.low <= one.change.value <= one.change.high
    assert found.windows == len(few)
    if name == "tiny-chronos-t5":
        assert max(c.horizon for c in few.configurations) <= TOKEN_STEPS
        assert len(few) <= TOKEN_WINDOWS
    nothing = finished(session.losses(Ablation(())))
    assert all(one.before == one.after and one.change.value == 0 for one in nothing.metrics.values())
    assert nothing.spearman == 0
    assert nothing.parroting[0] == nothing.parroting[1] == found.parroting[0]


def test_losses_give_way_and_are_kept(session: Session) -> None:
    ablation = Ablation(some_cells(session, 4), "resample", seed=9)
    steps = sum(1 for _ in session.losses(ablation))
    assert steps >= len({c.horizon for c in session.few.suite.configurations})
    assert list(session.losses(ablation)) == []


def test_the_view_of_a_head(session: Session) -> None:
    series = first_window(session)
    for head in session.model.anatomy.select("encoder.*.self.head.*"):
        found = session.component_view(series, head, Ablation(()))
        seen, written = found.attention, found.writing
        assert seen is not None
        rows = seen.weights.sum(axis=1)
        assert np.all(np.isclose(rows, 1, atol=1e-5) | (rows == 0))
        assert seen.weights.shape == (len(seen.queries), len(seen.keys))
        assert set(seen.statistics) == set(ROW_STATISTICS)
        for mass in (seen.mass, seen.uniform):
            assert 0 < mass.sum() <= 1 + 1e-6
        assert seen.mass.sum() + seen.statistics["untimed"] == pytest.approx(1, abs=1e-5)
        assert len(written.times) == len(written.strength) == len(written.direction)
        assert np.all(written.strength > 0)
        assert np.isfinite(written.share)
    # what the component itself would write, whether it is on or off
    off = session.component_view(series, head, Ablation((head,)))
    np.testing.assert_array_equal(off.writing.strength, written.strength)
    below = session.component_view(series, head, Ablation(session.model.anatomy.select("encoder.0.mlp")))
    assert not np.array_equal(below.writing.strength, written.strength)


def test_times_of_a_model_that_is_given_the_last_steps_one_by_one() -> None:
    session = Session(tiny("tiny-chronos-t5"), shared_suite())
    series = first_window(session)
    inside, across = session.model.anatomy.select(["encoder.0.self.head.0", "decoder.0.cross.head.0"])
    first = session.component_view(series, inside, Ablation(()))
    second = session.component_view(series, across, Ablation(()))
    assert first.attention is not None
    assert second.attention is not None
    for keys in (first.attention.keys, second.attention.keys, first.writing.times):
        assert np.nanmax(keys) == -8
    assert second.attention.queries.tolist() == list(range(-8, 0))


def test_an_mlp_and_a_head_over_series_have_no_map(session: Session) -> None:
    series = first_window(session)
    (mlp,) = session.model.anatomy.select("decoder.0.mlp")
    assert session.component_view(series, mlp, Ablation(())).attention is None
    toto = Session(tiny("tiny-toto"), shared_suite())
    (head,) = toto.model.anatomy.select("stack.2.variate.head.0")
    assert toto.component_view(first_window(toto), head, Ablation(())).attention is None


def test_long_maps_are_joined_and_keep_their_sums(session: Session) -> None:
    series = first_window(session)
    (head,) = session.model.anatomy.select("encoder.0.self.head.0")
    whole = session.component_view(series, head, Ablation(())).attention
    small = session.component_view(series, head, Ablation(()), positions=4).attention
    assert whole is not None
    assert small is not None
    assert small.weights.shape[1] <= 4
    np.testing.assert_allclose(small.weights.sum(axis=1)[-1], 1, rtol=1e-5)
    assert small.keys[-1] == whole.keys[-1] or np.isnan(small.keys[-1])


def test_scores_of_the_map(session: Session) -> None:
    scores, series = MapScores(session), first_window(session)
    assert next(iter(scores.scores)) == "stable_rank"
    ranks = stable_ranks(session.model)
    found = scores.values("stable_rank", series)
    assert found.done == found.total
    heads = dict(zip(ranks["address"], ranks["stable_rank"], strict=True))
    assert {a: x for a, x in found.values.items() if not np.isnan(x)} == heads
    for name in ("mase_change", "parroting", "moved"):
        calls = 0
        while (found := scores.values(name, series)).done < found.total:
            calls += 1
            assert calls <= len(session.cells)
        assert set(found.values) == set(session.cells)
    last = list(session.cells)[-1]
    (component,) = some_cells(session, -1)
    assert found.values[last] == session.without(series, Ablation((component,))).moved
    effects = scores.values("mase_change", series).values
    losses = finished(session.losses(Ablation((component,))))
    assert effects[last] == losses.metrics["MASE"].change.value
    with pytest.raises(TspruneError, match="unknown score"):
        scores.values("nonsense", series)


def test_drawn_series_and_windows_that_are_not_there(session: Session) -> None:
    length = session.model.context_length
    wave = drawn_series([float(np.sin(step / 2)) for step in range(64)], length)
    assert session.series_view(wave).clean.quantiles.shape == (3, wave.horizon)
    wrong = ([1.0] * 7, "8 to"), ([1.0] * 5000, "8 to"), (["x"] * 9, "series 0"), ([None] * 9, "observed")
    for values, words in wrong:
        with pytest.raises(TspruneError, match=words):
            drawn_series(values, length)
    with pytest.raises(TspruneError, match="no configuration"):
        window_of(session.suite, "nothing", 0, length)
    with pytest.raises(TspruneError, match="not 99"):
        window_of(session.suite, "first/D/short", 99, length)
    with pytest.raises(TspruneError, match="no observed value"):
        window_of(session.suite, "second/D/short", 1, length)


def test_windows_of_a_users_file_have_the_names_in_it(session: Session) -> None:
    days = pd.date_range("2024-01-01", periods=40, freq="D")
    frame = pd.DataFrame({"id": ["north"] * 40 + ["south"] * 40, "day": [*days, *days], "sold": range(80)})
    named = from_frame(frame, target="sold", id_column="id", horizon=5, windows=2)
    (c,) = named.configurations
    assert [window_name(c, row) for row in range(4)] == [
        f"{name} from 2024-{day}" for name in ("north", "south") for day in ("01-31", "02-05")
    ]
    assert window_of(named, c.name, 3, 64).name == f"{c.name}, south from 2024-02-05"
    assert c.origins is not None
    untimed = dataclasses.replace(c.origins, starts=np.full(4, np.datetime64("NaT", "us")))
    assert window_name(dataclasses.replace(c, origins=untimed), 1) == "north, window 1"
    few = Session(session.model, named)
    (found,) = description(few, MapScores(few))["series"]
    assert found["names"][3] == "south from 2024-02-05"
    first = session.suite.configurations[0]
    assert window_of(session.suite, first.name, 0, 64).name == f"{first.name}, window 0"


def test_records_of_few_series_are_kept(session: Session) -> None:
    length = session.model.context_length
    for shift in range(7):
        one = drawn_series([float(step + shift) for step in range(40)], length)
        session.series_view(one)
    first = first_window(session)
    found = session.without(first, Ablation(some_cells(session, 1)))
    with tsprune.ablate(session.model, some_cells(session, 1)):
        plain = session.model.forecast([first.context.copy()], first.horizon)
    np.testing.assert_array_equal(found.quantiles, plain.at(SHOWN_LEVELS)[0])
