"""The explanation, as a page and in a study's report: its numbers, its nulls, nothing it does not know."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from handmade_explanation import SPAN, make_explanation, make_single_stack
from handmade_study import ENCODER_DECODER, make_model, make_study
from rendered_page import MARKUP, Page

from tests.suites import configuration, tiny
from tsprune.data import Suite
from tsprune.explain import Explanation, overview
from tsprune.report import figures, palette, write_explanation
from tsprune.report.explanation_page import compared, explanation_headline, of_model, render_explanation
from tsprune.report.figures.forecasts import last_view
from tsprune.report.study_page import render_report


@pytest.fixture(scope="module")
def found() -> Explanation:
    return make_explanation()


@pytest.fixture(scope="module")
def html(found: Explanation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as it is written."""
    path = tmp_path_factory.mktemp("explanation") / "new" / "page.html"
    write_explanation(found, path)
    return path.read_text(encoding="utf-8")


def bare(found: Explanation) -> Explanation:
    """What is left without effects, induction, attribution and portraits."""
    nothing = pd.DataFrame()
    empty = dict.fromkeys(
        (
            "carriers",
            "guard",
            "attribution",
            "effects",
            "by_share",
            "induction_effects",
            "clean",
            "mechanism",
            "correlations",
            "induction",
            "chaos",
            "chaos_mechanism",
        ),
        nothing,
    )
    heads = found.heads.drop(
        columns=[n for n in found.heads if n.startswith(("mase", "parroting", "followed", "size"))]
    )
    return dataclasses.replace(found, heads=heads, **empty)


def test_a_page_of_its_own_fetches_nothing_and_holds_everything(found: Explanation, html: str) -> None:
    page = Page(html)
    assert not [a for _, a in page.elements if "src" in a or not (a.get("href") or "#").startswith("#")]
    assert html.count('id="library"') == 1
    text = page.read
    for one in found.portraits:
        assert f"{one.address}: {one.reasons[0]}" in text
    assert "60 windows of the suite pocket" in text
    assert "too short a context" in text
    assert len(page.figures()) == 1 + 4 + 2 + 3
    for figure in page.figures():
        used = {trace.get("xaxis", "x").replace("x", "xaxis") for trace in figure["data"]}
        assert used <= figure["wide"].keys() & figure["narrow"].keys()


def test_the_verdict_table_names_each_claim_once_and_each_statement(found: Explanation) -> None:
    section, _ = compared([found, make_single_stack()])
    table = section.tables[0]
    assert table.columns == (
        *("model", "claim", "verdict", "statement", "value", "95 % interval", "units", "note"),
    )
    named = [(row[0].text, row[1].text, row[2].text) for row in table.rows if row[0].text]
    claims = found.mechanism["claim"].unique().tolist()
    assert named == [(m, c, "confirmed") for m in ("bolt-pocket", "timesfm-pocket") for c in claims]
    assert len(table.rows) == 2 * len(found.mechanism)
    assert [cell.text for cell in table.rows[0][3:7]] == ["statement 1", "-0.1", "-0.2 to -0.05", "30"]
    assert [cell.text for cell in table.rows[1][:3]] == ["", "", ""]
    assert table.rows[1][3].text == "statement 2"


def test_chaos_is_a_table_of_the_model_and_of_copiers(found: Explanation) -> None:
    *_, section = compared([found, make_single_stack()])
    copied, claims, _ = section.tables
    assert [row[1].text for row in copied.rows] == [
        *("bolt-pocket", "parrot (motif of 10)"),
        *("timesfm-pocket", "parrot (motif of 10)"),
    ]
    own, parrot = found.chaos[found.chaos["measure"] == "excess_parroting"].to_dict("records")
    place = copied.columns.index("excess parroting")
    interval = f"{own['mean']:+.3f} [{own['low']:+.3f}, {own['high']:+.3f}]"
    assert copied.rows[0][place].text == interval
    assert copied.rows[1][place].text.endswith(f"{parrot['high']:+.3f}] (+0.500)")
    assert [cell.text for cell in claims.rows[0][1:3]] == ["sharp heads carry parroting", "confirmed"]
    assert claims.rows[0][6].text == "24"
    assert "three random draws" in section.leads[0]
    bare_of_claims = dataclasses.replace(found, chaos_mechanism=pd.DataFrame())
    *_, section = compared([bare_of_claims])
    assert len(section.tables) == 2
    assert "random draws" not in section.leads[0]


def test_every_statistic_of_attention_is_a_view_over_its_null(found: Explanation) -> None:
    figure = figures.attended_maps(found)
    labels = [button.name for button in figure.layout.updatemenus[0].buttons]
    assert labels == ["sharpness", "entropy", "effective keys", "lag", "band", "period"]
    cross = found.heads[found.heads["attention"] == "cross"]
    shown = {t.meta["view"]: t for t in figure.data if t.xaxis == figure.data[-1].xaxis}
    for view, column in (("entropy", "entropy"), ("period_share", "period_share")):
        even = cross["period_share_uniform"] if view == "period_share" else 0
        expected = cross.assign(v=cross[column] - even).pivot(index="layer", columns="head", values="v")
        np.testing.assert_allclose(shown[view].z, expected)
    assert sum(bool(t.visible) for t in figure.data) == len(figure.data) / len(labels)
    idle = found.heads["attention"] == "self"  # a decoder's only token has no choice of keys
    statistics = figures.attending.ATTENTION_STATISTICS
    some = found.heads.assign(**{name: found.heads[name].where(~idle) for name in statistics})
    left = figures.attended_maps(dataclasses.replace(found, heads=some))
    assert {a.text for a in left.layout.annotations} == {"decoder, cross-attention"}


def test_the_kernel_view_is_drawn_with_its_correlation(found: Explanation) -> None:
    figure = figures.kernel_points(found)
    drawn = [t for t in figure.data if t.meta["view"] == "stable_rank" and t.xaxis in (None, "x")]
    rows = found.heads.set_index("address")
    for trace in drawn:
        np.testing.assert_allclose(trace.x, rows.loc[list(trace.text), "stable_rank"])
        np.testing.assert_allclose(trace.y, rows.loc[list(trace.text), "effective_keys"])
    assert sum(len(t.x) for t in drawn) == len(rows)
    texts = [a.text for a in figure.layout.annotations]
    assert sum("rho +0.30 [+0.10, +0.50], p = 0.01" in text for text in texts) == 1  # of lag_spread alone
    assert sum("correlation undefined" in text for text in texts) == 2


def test_induction_is_drawn_by_combination_and_with_what_it_tells(found: Explanation) -> None:
    figure = figures.induction_curves(found)
    best, *_ = (t for t in figure.data if t.name != "rho over heads")
    scores = found.induction.groupby("address")["followed_score"].mean()
    assert best.name == scores.idxmax()
    rows = found.induction[found.induction["address"] == best.name]
    assert list(best.x) == ["3x2", "3x3", "5x2", "5x3"]
    np.testing.assert_allclose(best.y, rows["followed_score"])
    np.testing.assert_allclose(best.error_y.array, 0.02)
    (rho,) = (t for t in figure.data if t.name == "rho over heads")
    assert (list(rho.x), set(rho.y)) == (list(best.x), {0.3})
    without = dataclasses.replace(found, induction_effects=pd.DataFrame())
    assert not [t for t in figures.induction_curves(without).data if t.name == "rho over heads"]


def test_heads_are_ranked_by_their_effect_on_parroting(found: Explanation) -> None:
    figure = figures.parroting_ranked(found)
    ranks = {
        text: (x, row[0])
        for t in figure.data
        if t.xaxis in (None, "x")
        for text, x, row in zip(t.text, t.x, t.customdata, strict=True)
    }
    expected = found.heads.sort_values("parroting")["address"].tolist()
    assert sorted(ranks, key=lambda address: ranks[address][0]) == expected
    effect = found.heads.set_index("address")["parroting"]
    assert all(value == effect[address] for address, (_, value) in ranks.items())
    assert expected[0] in figure.layout.annotations[0].text
    (section,) = of_model("-0", found)
    (listed,) = (t for t in section.tables if t.title == "Heads by their effect on parroting")
    assert [row[0].text for row in listed.rows] == expected


def test_what_was_not_measured_of_heads_is_said(found: Explanation) -> None:
    nothing = bare(found)
    blind = nothing.heads.drop(columns=[*figures.attending.ATTENTION_STATISTICS, "lag_spread"])
    blind = dataclasses.replace(nothing, heads=blind)
    for draw in (figures.attended_maps, figures.kernel_points):
        assert "no head has a choice" in draw(blind).layout.annotations[0].text.lower()
    assert "not measured" in figures.induction_curves(nothing).layout.annotations[0].text
    assert "No head was ablated" in figures.parroting_ranked(nothing).layout.annotations[0].text


def test_a_study_shows_both_models_in_one_picture_and_each_by_itself() -> None:
    models = [
        dataclasses.replace(
            make_model("bolt-pocket", stacks=ENCODER_DECODER, layers=3, heads=4),
            explanation=make_explanation(),
        ),
        dataclasses.replace(make_model("timesfm-pocket", layers=4, heads=2), explanation=make_single_stack()),
    ]
    page = Page(render_report(make_study(*models)))
    ids = [a["id"] for tag, a in page.elements if tag == "figure"]
    assert len(ids) == len(set(ids))
    text = page.read
    assert text.count("Which heads carry parroting, which seasonality?") == 1
    for model in models:
        assert model.explanation is not None
        assert f"{model.explanation.model}: Parroting" in text
    # every caption is that of a figure, with its placeholders filled in
    captions = tomllib.loads(resources.files("tsprune.report").joinpath("captions.toml").read_text())
    of_figures = {name for name, words in captions.items() if "heading" in words}
    assert {re.sub(r"(-[0-9]+)+$", "", name) for name in ids} == of_figures - {"tradeoff", "frontier"}
    assert not re.search(r"[{}]", "".join(page.text).split("Manifest")[0])
    assert {"stream-0", "stream-1", "parts-0", "head-0-0", "head-1-1"} <= set(ids)
    # why a model behaves so follows what it does
    assert ids.index("rank-0") < ids.index("head-0-0") < ids.index("forecasts-1") < ids.index("stream-1")


def test_a_study_without_explanations_has_no_such_sections() -> None:
    page = Page(render_report(make_study(make_model("m", layers=1, heads=1))))
    assert "mechanism" not in [a.get("id") for tag, a in page.elements if tag == "figure"]


def test_curves_hold_the_means_intervals_and_the_band_of_the_draws(found: Explanation) -> None:
    figure = figures.mechanism_curves([found])
    rows = found.effects[found.effects["effect"] == "parroting"]
    traces = [t for t in figure.data if t.xaxis == "x2"]
    band = next(t for t in traces if t.fill == "toself")
    chance = rows[rows["which"] == "random"]
    np.testing.assert_allclose(band.y[1:4], chance["draw_high"])
    np.testing.assert_allclose(band.y[-2:-5:-1], chance["draw_low"])
    for which in ("sharp", "diffuse"):
        part = rows[rows["which"] == which]
        line = next(t for t in traces if t.name == palette.HEAD_SET[which].label)
        np.testing.assert_allclose(line.x, [0, 10, 30, 50])
        np.testing.assert_allclose(np.asarray(line.customdata)[1:], part[["mean", "low", "high"]])
        np.testing.assert_allclose(np.asarray(line.y)[1:] + np.asarray(line.error_y.array)[1:], part["high"])
        np.testing.assert_allclose(
            np.asarray(line.y)[1:] - np.asarray(line.error_y.arrayminus)[1:], part["low"]
        )
    titles = [a.text for a in figure.layout.annotations]
    assert any("+0.123 [+0.100, +0.150]" in title for title in titles)


def test_parts_are_drawn_at_their_layer_with_both_nulls(found: Explanation) -> None:
    figure = figures.forecast_parts(found)
    drawn = {text: (x, y) for t in figure.data for text, x, y in zip(t.text, t.x, t.y, strict=True)}
    assert set(drawn) == set(found.attribution["part"])
    for row in found.attribution.itertuples():
        x, y = drawn[row.part]
        assert round(x) == row.layer
        assert y == pytest.approx(100 * row.share)
    for axis, (_, rows) in zip(("y", "y2"), found.attribution.groupby("stack", sort=False), strict=True):
        lines = sorted(shape.y0 for shape in figure.layout.shapes if shape.yref == axis)
        assert lines == [0, pytest.approx(100 * rows["share"].sum() / len(rows))]
    titles = [a.text for a in figure.layout.annotations]
    assert any("cross-attention read from it (+50.0 %)" in title for title in titles)


def test_every_layer_of_every_stack_is_in_the_stream(found: Explanation) -> None:
    figure = figures.residual_stream(found)
    norms = {t.name: t for t in figure.data if t.xaxis in (None, "x")}
    for stack, rows in found.residual.groupby("stack"):
        np.testing.assert_allclose(norms[stack].y, rows["norm"])
        np.testing.assert_allclose(norms[stack].error_y.array, rows["norm_high"] - rows["norm"])
    assert len({t.xaxis for t in figure.data}) == 5


def test_the_guard_of_the_lens_is_told(found: Explanation, html: str) -> None:
    text = Page(html).read
    other = 100 * found.guard["other"]
    assert f"output changes by {other.min():.1f} % to {other.max():.1f} % of its largest value" in text
    assert "with its own, by 0.00 %" in text


def test_similarity_is_symmetric_and_says_what_chance_gives(found: Explanation) -> None:
    figure = figures.layer_similarity(found)
    for trace, (_, rows) in zip(figure.data, found.cka.groupby("stack", sort=False), strict=True):
        z = np.asarray(trace.z)
        np.testing.assert_array_equal(z, z.T)
        assert (np.diag(z) == 1).all()
        first = rows.iloc[0]
        assert z[first["a"] + 1, first["b"] + 1] == first["cka"]
    assert all("0.05" in figure.layout.annotations[i].text for i in range(2))


def test_what_the_end_of_a_window_looks_at(found: Explanation) -> None:
    glance = found.portraits[0].glance
    assert glance is not None
    seen = last_view(glance)
    assert seen is not None
    weights, times = seen
    # the register has no time: it neither asks nor is shown
    np.testing.assert_array_equal(weights, glance.weights[-2, :-1].astype(float))
    assert (times[0], times[-1]) == (-(len(times) - 1) * SPAN, 0)
    timeless = dataclasses.replace(glance, queries=np.full_like(glance.queries, np.nan))
    assert last_view(timeless) is None
    figures.head_portrait(dataclasses.replace(found.portraits[0], glance=timeless), found.profile.iloc[:0])


def test_a_portrait_without_attention_has_forecasts_only(found: Explanation) -> None:
    one = dataclasses.replace(found.portraits[0], glance=None)
    figure = figures.head_portrait(one, found.profile.iloc[:0])
    assert not [t for t in figure.data if t.type in ("heatmap", "bar")]
    assert len({t.xaxis for t in figure.data}) == 3
    nothing = figures.head_portrait(dataclasses.replace(one, examples=()), found.profile.iloc[:0])
    assert "Nothing was measured" in nothing.layout.annotations[0].text


def test_what_was_not_measured_is_not_claimed(found: Explanation) -> None:
    nothing = bare(found)
    assert compared([nothing]) == []
    html = render_explanation(nothing)
    text = Page(html).read
    assert "No head was ablated" in explanation_headline(nothing)
    assert "Without it" not in text
    assert "Check of the lens" not in text
    assert "could not be attributed" in json.dumps(Page(html).figures())


def test_the_encoders_share_is_explained_where_there_is_an_encoder() -> None:
    def caption(found: Explanation) -> str:
        (section,) = of_model("-0", found)
        return next(p.caption for p in section.pictures if p.key == "parts-0")

    assert "decoder's cross-attention" in caption(make_explanation())
    assert "encoder" not in caption(make_single_stack())


@pytest.mark.parametrize("name", ["tiny-chronos-t5", "tiny-chronos2", "tiny-moirai"])
def test_every_kind_of_model_is_drawn(name: str) -> None:
    """Tokens and a lens of their own; heads over series; patches that stand for the future."""
    suite = Suite("s", (configuration("a/D/short", [64, 128, 128], 4),))
    found = overview(tiny(name), suite, effects=False)
    page = Page(render_explanation(found))
    text = page.read
    assert found.portraits
    for one in found.portraits:
        assert one.address in text
        assert one.glance is not None
        sums = one.glance.weights.sum(1)
        np.testing.assert_allclose(sums[sums > 0], 1, atol=1e-5)
    assert "Check of the lens" in text


def test_text_from_outside_stays_text(found: Explanation, html: str) -> None:
    evil = dataclasses.replace(
        found,
        model=MARKUP,
        suite=MARKUP,
        skipped=((MARKUP, MARKUP),),
        portraits=tuple(
            dataclasses.replace(
                one,
                glance=dataclasses.replace(one.glance, configuration=MARKUP) if one.glance else None,
                examples=tuple(dataclasses.replace(e, configuration=MARKUP) for e in one.examples),
            )
            for one in found.portraits
        ),
        mechanism=found.mechanism.assign(model=MARKUP),
    )
    page, clean = Page(render_explanation(evil)), Page(html)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in clean.elements]
    for figure in page.figures():
        assert MARKUP not in json.dumps(figure)


def test_the_answer_comes_first(found: Explanation, html: str) -> None:
    places = [html.index(title) for title in ("Which heads carry parroting", "Do sharp heads copy?")]
    assert places == sorted(places)
    assert found.carriers["address"].iloc[0] in html[places[0] : places[1]]
