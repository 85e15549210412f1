"""Figures draw the study's numbers, and scales map them without loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from handmade_study import ENCODER_DECODER, make_model, make_study
from hypothesis import given
from hypothesis import strategies as st

from tsprune.evaluation import METRICS
from tsprune.report import figures, palette
from tsprune.report.digest import change_column, mlp_summary
from tsprune.report.figures.forecasts import quantile_at
from tsprune.report.figures.pruning import pruning_scale, pruning_spread
from tsprune.report.figures.shared import changes_of
from tsprune.report.panels import Scale, scale_for
from tsprune.studies.study_result import Study


def views(figure, view: str) -> list:
    return [trace for trace in figure.data if (trace.meta or {}).get("view") == view]


def test_layer_curves_hold_every_change(study: Study) -> None:
    figure = figures.layer_curves(study)
    for metric in METRICS:
        drawn = np.concatenate([np.asarray(trace.customdata)[:, 0] for trace in views(figure, metric)])
        wanted = np.concatenate([100 * m.layers[change_column(metric)].to_numpy() for m in study.models])
        np.testing.assert_allclose(np.sort(drawn.astype(float)), np.sort(wanted))


def test_buttons_show_one_metric_at_a_time(study: Study) -> None:
    figure = figures.layer_curves(study)
    buttons = figure.layout.updatemenus[0].buttons
    assert [b.name for b in buttons] == ["CRPS", "MASE"]
    assert [b.label for b in buttons] == ["✓ CRPS", "MASE"]
    ticked = [[button.args[1][f"updatemenus[0].buttons[{k}].label"] for k in (0, 1)] for button in buttons]
    assert ticked == [["✓ CRPS", "MASE"], ["CRPS", "✓ MASE"]]
    for button, metric in zip(buttons, ("CRPS", "MASE"), strict=True):
        shown = [
            t.meta["view"] for t, seen in zip(figure.data, button.args[0]["visible"], strict=True) if seen
        ]
        assert set(shown) == {metric}
        assert button.args[1]["yaxis.title.text"] == f"change of {metric} (%), lower is better"
    assert figure.layout.yaxis.title.text == "change of CRPS (%), lower is better"
    assert [t.visible for t in figure.data] == list(buttons[0].args[0]["visible"])


def test_each_name_is_once_in_the_legend_of_a_view(study: Study) -> None:
    for draw in (figures.layer_curves, figures.pruning_curves):
        for metric in METRICS:
            names = [t.name for t in views(draw(study), metric) if t.showlegend is not False]
            assert len(names) == len(set(names)) >= 3


def test_pruning_means_and_bands(study: Study) -> None:
    table = study.models[0].pruning
    spread = pruning_spread(table, "CRPS")
    draws = 100 * table[(table.strategy == "random") & (table.percent == 30)]["crps_change"]
    row = spread.loc[30.0]
    assert (row["low"], row["high"], row["draws"]) == (draws.min(), draws.max(), 5)
    assert row["plus"] - row["minus"] == pytest.approx(2 * draws.std())
    assert (spread.loc[0.0] == 0).all()
    lines = {t.name: t for t in views(figures.pruning_curves(study), "CRPS") if t.xaxis == "x"}
    line = lines["random (mean)"]
    assert line.customdata[:, 3].tolist() == [0, 10, 20, 30, 40, 50]
    np.testing.assert_allclose(line.x, line.customdata[:, 3], atol=1)
    rows = study.models[0].comparisons.set_index(["percent", "metric", "versus"])
    mean = rows.loc[(30, "CRPS", "unpruned"), "difference"]
    assert line.customdata[3, 0] == pytest.approx(100 * mean)


def key_of(trace, styles: palette.Styles) -> str | None:
    """What a trace shows, by the label of its style."""
    return next((key for key, style in styles.items() if style.label == trace.name), None)


def ends(trace, side: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """Where a trace's error bars end, on the axis."""
    bars, at = getattr(trace, f"error_{side}"), np.asarray(getattr(trace, side), dtype=float)
    return at - np.asarray(bars.arrayminus), at + np.asarray(bars.array)


def test_error_bars_end_at_the_limits_of_the_intervals(study: Study) -> None:
    model = study.models[1]
    alone = make_study(model)
    scale = scale_for(changes_of([model.layers]), threshold=1.0)
    for trace in views(figures.layer_curves(alone), "MASE"):
        rows = model.layers[model.layers["unit"] == key_of(trace, palette.UNIT)].sort_values("layer")
        low, high = ends(trace)
        np.testing.assert_allclose(low, scale(100 * rows["mase_low"]))
        np.testing.assert_allclose(high, scale(100 * rows["mase_high"]))
    scale = pruning_scale([model])
    for trace in views(figures.pruning_curves(alone), "CRPS"):
        strategy = key_of(trace, palette.STRATEGY)
        if strategy in ("high-to-low", "low-to-high"):
            rows = model.pruning[model.pruning["strategy"] == strategy].sort_values("percent")
        elif strategy == "random":
            rows = model.comparisons[model.comparisons["versus"] == "unpruned"]
            rows = rows[rows["metric"] == "CRPS"].sort_values("percent")
            rows = rows.rename(columns={"low": "crps_low", "high": "crps_high"})
        else:
            continue
        low, high = ends(trace)
        np.testing.assert_allclose(low[1:], scale(100 * rows["crps_low"]))
        np.testing.assert_allclose(high[1:], scale(100 * rows["crps_high"]))


def test_the_rankings_by_attention_maps_are_drawn_before_the_random_null(study: Study) -> None:
    figure = figures.pruning_curves(study, strategies=("high-to-low", "svd-low-to-high"))
    drawn = [t.name for t in views(figure, "CRPS") if t.xaxis == "x"]
    lines = [palette.STRATEGY[strategy].label for strategy in ("high-to-low", "svd-low-to-high")]
    assert drawn == ["random: lowest to highest", "random: mean ± 1 sd", *lines]


def test_scores_point_to_the_right_where_they_are_right() -> None:
    model = make_model("m", layers=3, heads=4)
    rows = [
        ("head", "all", "stable_rank", "CRPS", -0.5, -0.7, -0.2, 0.001, 0.01, 12, -1),
        ("head", "all", "output_norm", "CRPS", 0.1, -0.3, 0.4, 0.6, 0.9, 12, 1),
        ("mlp", "all", "output_norm", "CRPS", 0.9, 0.8, 1.0, 0.01, 0.02, 3, 1),
        ("head", "stack.self", "output_norm", "CRPS", 0.3, 0.2, 0.4, 0.01, 0.02, 6, 1),
    ]
    columns = ["kind", "group", "score", "metric", "rho", "low", "high", "p_value", "p_holm", "count"]
    table = pd.DataFrame(rows, columns=[*columns, "expected"])
    figure = figures.score_agreement(make_study(dataclasses.replace(model, agreement=table)))
    heads, mlps = views(figure, "CRPS")
    assert list(heads.x) == [0.5, 0.1]
    low, high = ends(heads, "x")
    np.testing.assert_allclose(low, [0.2, -0.3])
    np.testing.assert_allclose(high, [0.7, 0.4])
    assert list(heads.marker.symbol) == ["circle", "circle-open"]
    assert list(mlps.x) == [0.9]
    assert list(figure.layout.yaxis.ticktext) == ["stable rank", "output norm"]


def test_a_dot_marks_heads_that_differ_by_interval_and_correction() -> None:
    model = make_model("m", layers=2, heads=2)
    heads = model.heads.assign(
        crps_low=[0.1, -0.1, 0.1, -0.3],
        crps_high=[0.2, 0.2, 0.2, -0.2],
        crps_p_holm=[0.01, 0.01, 0.06, 0.05],
    )
    figure = figures.head_maps(dataclasses.replace(model, heads=heads))
    (drawn,) = [t for t in figure.data if t.coloraxis == "coloraxis2"]
    assert np.asarray(drawn.text).tolist() == [["•", ""], ["", "•"]]


def test_one_random_draw_has_no_band() -> None:
    model = make_model("one", layers=4, heads=4)
    few = model.pruning[(model.pruning.strategy != "random") | (model.pruning.seed == 0)]
    object.__setattr__(model, "pruning", few)
    names = {trace.name for trace in figures.pruning_curves(make_study(model)).data}
    assert not [name for name in names if "lowest to highest" in name]
    assert "random (mean)" in names


def test_head_maps_put_each_head_in_its_cell() -> None:
    model = make_model("m", stacks=ENCODER_DECODER, layers=3, heads=5)
    shuffled = model.heads.sample(frac=1, random_state=0)
    object.__setattr__(model, "heads", shuffled)
    figure = figures.head_maps(model)
    for _, head in shuffled.iterrows():
        matching = [
            np.asarray(trace.z)[head["layer"], head["head"]]
            for trace in views(figure, "stable_rank_effective")
        ]
        assert head["stable_rank_effective"] in matching
    assert len(figure.data) == 3 * 3


def test_uneven_heads_leave_gaps() -> None:
    model = make_model("m", layers=3, heads=4)
    object.__setattr__(model, "heads", model.heads[model.heads["address"] != "stack.1.self.head.3"])
    z = np.asarray(figures.head_maps(model).data[0].z)
    assert np.argwhere(np.isnan(z)).tolist() == [[1, 3]]


def test_correlations_are_in_the_titles() -> None:
    model = make_model("m", layers=3, heads=4)
    figure = figures.rank_against_effect(model)
    table = model.rank_correlation
    for button, variant in zip(figure.layout.updatemenus[0].buttons, ("paper", "effective"), strict=True):
        row = table[(table.variant == variant) & (table.metric == "CRPS")].iloc[0]
        assert f"{row.correlation:+.2f}" in button.args[1]["annotations[0].text"]
    assert (
        figure.layout.annotations[0].text
        == figure.layout.updatemenus[0].buttons[0].args[1]["annotations[0].text"]
    )


def test_heads_at_draws_what_must_stay(study: Study) -> None:
    drawn = [t for t in figures.heads_at_bars(study).data if t.name.startswith("must stay")]
    total = sum(int(np.asarray(t.y).sum()) for t in drawn)
    assert total == sum(int(m.heads_at["heads_at"].sum()) for m in study.models)


# --- models side by side -------------------------------------------------------------------------


def five() -> Study:
    """As the bundled checkpoints: unlike depths, encoder-decoders and single stacks."""
    return make_study(
        make_model("bolt", stacks=ENCODER_DECODER, layers=6, heads=8, seed=1),
        make_model("t5", stacks=ENCODER_DECODER, layers=4, heads=4, seed=2),
        make_model("timesfm", layers=8, heads=8, seed=3),
        make_model("toto", stacks=(("stack", ("time", "variate")),), layers=7, heads=8, seed=4),
        make_model("moirai", layers=6, heads=4, seed=5),
    )


@pytest.mark.parametrize("columns", [None, 1])
def test_layers_compared_hold_every_change_at_its_depth(columns: int | None) -> None:
    study = five()
    figure = figures.layers_compared(study, columns=columns)
    for metric in METRICS:
        lines = views(figure, metric)
        assert len(lines) == 3 * 7  # units x stacks
        drawn = np.concatenate([np.asarray(line.customdata)[:, 0] for line in lines])
        wanted = np.concatenate([100 * m.layers[change_column(metric)].to_numpy() for m in study.models])
        np.testing.assert_allclose(np.sort(drawn), np.sort(wanted))
        for line in lines:
            assert (line.x[0], line.x[-1]) == (0, 1)
            np.testing.assert_allclose(np.diff(line.x), 1 / (len(line.x) - 1))
        named = [line for line in lines if line.showlegend]
        assert len({line.name for line in named}) == len(named) == 7
        # what one sees: no two lines have the same colour, dash and marker
        assert len({(n.line.color, n.line.dash, n.marker.symbol) for n in named}) == 7
    encoder = next(line for line in figure.data if line.name == "t5, encoder")
    decoder = next(line for line in figure.data if line.name == "t5, decoder")
    assert (encoder.line.color, encoder.line.dash) == (decoder.line.color, "dot")


def test_a_single_layer_is_drawn_at_the_first_place() -> None:
    figure = figures.layers_compared(make_study(make_model("one", layers=1), make_model("two", layers=2)))
    assert list(next(line for line in figure.data if line.name == "one").x) == [0.0]


def test_mlp_sensitivity_puts_encoder_decoders_first_and_names_medians() -> None:
    study = five()
    figure = figures.mlp_sensitivity(study)
    points = [trace for trace in views(figure, "MASE") if trace.mode == "markers"]
    assert [trace.name for trace in points] == ["encoder-decoder"] * 4 + ["decoder-only"] * 3
    assert list(figure.layout.yaxis.ticktext)[:2] == ["bolt<br>encoder", "bolt<br>decoder"]
    table = mlp_summary(study)
    assert table["architecture"].tolist() == [trace.name for trace in points]
    words = [trace for trace in views(figure, "MASE") if trace.mode == "markers+text"]
    for row, (trace, label) in enumerate(zip(points, words, strict=True)):
        assert np.abs(np.asarray(trace.y) - row).max() < 0.5
        changes = np.asarray(trace.customdata)[:, 0]
        assert 100 * table["median_mase_change"][row] == pytest.approx(np.median(changes))
        assert 100 * table["largest_mase_change"][row] == pytest.approx(changes.max())
        assert label.text[1] == f"median {np.median(changes):+.3g} %"


def test_heads_compared_are_in_their_cells() -> None:
    study = five()
    maps = {trace.meta["view"]: trace for trace in figures.heads_at_compared(study).data}
    assert set(maps) == {"calibration", "test"}
    labels = list(figures.heads_at_compared(study).layout.yaxis.ticktext)
    assert len(labels) == 3 + 3 + 1 + 2 + 1
    for selection, trace in maps.items():
        for model in study.models:
            for cell in model.heads_at[model.heads_at["selection"] == selection].to_dict("records"):
                row = labels.index(f"{model.name}<br>{cell['stack']}, {cell['attention']}-attention")
                assert trace.text[row][cell["layer"]] == f"{cell['heads_at']}/{cell['heads']}"
                assert trace.z[row][cell["layer"]] == cell["heads_at"] / cell["heads"]
        assert np.isnan(trace.z[labels.index("t5<br>encoder, self-attention")][4:]).all()


def test_models_of_the_same_name_stay_apart() -> None:
    twice = make_study(make_model("same", layers=3, seed=1), make_model("same", layers=3, seed=2))
    assert len(figures.heads_at_compared(twice).layout.yaxis.ticktext) == 2
    assert len(figures.mlp_sensitivity(twice).layout.yaxis.ticktext) == 2


def test_a_quantile_between_levels_is_interpolated() -> None:
    forecast = np.array([[3.0, 30.0], [1.0, 10.0]], dtype=np.float32)
    np.testing.assert_allclose(quantile_at(forecast, (0.9, 0.1), 0.5), [2.0, 20.0])
    np.testing.assert_allclose(quantile_at(forecast, (0.9, 0.1), 0.1), [1.0, 10.0])


def test_small_effects_are_linear_and_wide_ones_logarithmic() -> None:
    assert scale_for([[0.5, 3.0]], threshold=1.0).threshold is None
    assert scale_for([[0.5, 300.0]], threshold=1.0).threshold == 1.0
    assert scale_for([[float("nan"), float("inf")]]).threshold is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(1e-3, 10))
def test_a_scale_is_monotone_odd_and_holds_all_values(values: list[float], threshold: float) -> None:
    scale = Scale(threshold, min([*values, 0.0]), max([*values, 0.0]))
    ordered = scale(np.sort(values))
    assert (np.diff(ordered) >= 0).all()
    np.testing.assert_allclose(scale(np.negative(values)), -scale(values))
    low, high = scale.range()
    assert low <= ordered[0] <= ordered[-1] <= high
    positions, labels = scale.ticks()
    assert len(positions) == len(labels)
    np.testing.assert_allclose(
        scale([float(label.replace(",", "")) for label in labels]), positions, rtol=1e-4
    )
