"""The page: self-contained, complete, escaped, and its numbers are the study's."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade_study import CONFIGURATIONS, make_model, make_study
from plotly.offline import get_plotlyjs
from rendered_page import MARKUP, Page, unpacked, values, with_long_tables

from tsprune import atomic
from tsprune.report import figures, write_report
from tsprune.report.answer import PAPER_ADDRESS, PAPER_LABEL, answers
from tsprune.report.study_page import render_report, svd_facts
from tsprune.report.words import between
from tsprune.studies.study_result import Study


@pytest.fixture(scope="module")
def html(study: Study) -> str:
    return render_report(study)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def little() -> Study:
    """One model of one layer, whose page is quickly written."""
    return make_study(make_model("little", layers=1, heads=1))


def test_nothing_is_fetched(page: Page) -> None:
    loads = {"src", "data", "action", "poster", "srcset", "xlink:href"}
    assert not [(tag, a) for tag, a in page.elements if loads & a.keys()]
    outside = {a["href"] for tag, a in page.elements if not (a.get("href") or "#").startswith("#")}
    assert outside == {PAPER_ADDRESS}  # a link that a reader may follow
    assert not {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in page.elements}
    style = " ".join([*page.styles, *(a["style"] or "" for _, a in page.elements if "style" in a)])
    assert "url(" not in style
    assert "@import" not in style


def test_a_policy_forbids_every_connection(page: Page) -> None:
    policy = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert len(policy) == 1
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none';")
    assert "http" not in policy[0]


def test_the_plotting_library_is_embedded_once_and_the_file_is_small(html: str) -> None:
    assert "plotly.js v" not in html  # but compressed
    (library,) = re.findall(r'id="library">([^<]+)<', html)
    assert unpacked(library) == get_plotlyjs()
    assert len(html.encode()) < 4_000_000


def test_ids_are_unique_and_links_within_the_page_lead_somewhere(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    inside = {a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")}
    assert inside <= set(ids)
    assert {a["aria-describedby"] for _, a in page.elements if "aria-describedby" in a} <= set(ids)
    assert {"s-layers", "s-claims", "s-methods", "manifest", "term-stable-rank"} <= inside


def test_every_table_is_folded_and_few_words_are_not(page: Page, study: Study) -> None:
    assert {tag: inside for tag, inside in page.inside.items() if tag == "table"} == {"table": {"details"}}
    assert 500 < len(page.unfolded.split()) < 4000


def test_the_first_screen_answers_and_its_commands_are_understood(page: Page, study: Study) -> None:
    first = page.read[: page.read.index("What is each layer worth?")]
    for place, model in enumerate(study.models, start=1):
        mlps = len(model.layers[model.layers["unit"] == "mlp"])
        total = f"2 of its {len(model.heads)} heads and 1 of its {mlps} MLPs, 10 % of its time"
        # the upper end of the interval, not the change
        assert f"{model.name} can lose {total}, for at most 1.73 % MASE." in first
        command = f"tsprune prune {model.name} --plan study/plan-{place}.json --out smaller-{model.name}"
        assert command in first
    assert "high stable rank average over many positions" in first
    assert PAPER_LABEL in first


def test_without_a_plan_the_answer_says_so() -> None:
    model = make_model("whole", layers=4, heads=4)
    none = dataclasses.replace(model, removals=model.removals.assign(chosen=False), plan=None)
    text = Page(render_report(make_study(none))).read
    assert (
        "Nothing can be removed from whole without retraining at a loss that is shown to stay below 5 %."
        in text
    )
    assert "Without 1 of its 16 heads and 1 of its 4 MLPs (5 % of its estimated time) MASE changes" in text
    assert "tsprune prune whole --saving 30% --out smaller" in text
    unknown = dataclasses.replace(none, removals=model.removals.iloc[:0])
    assert "so it has no answer" in Page(render_report(make_study(unknown))).read


def test_commands_are_quoted_and_a_model_of_a_script_gets_python() -> None:
    model = dataclasses.replace(make_model("little", layers=1, heads=1), name="my $models/it's")
    (answer,) = answers(make_study(model), Path("a b"))
    words = shlex.split(answer.commands[0])
    assert words == ["tsprune", "prune", model.name, "--plan", "a b/plan.json", "--out", "smaller"]
    assert [shlex.split(command)[1] for command in answer.commands] == ["prune", "recover", "export"]
    (answer,) = answers(make_study(dataclasses.replace(model, family="a plugin's")), Path("a"))
    assert [shlex.split(command)[1] for command in answer.commands] == ["prune", "recover"]
    (answer,) = answers(make_study(dataclasses.replace(model, sha256="")), Path("a"))
    assert ast.parse(answer.commands[0])


def test_every_claim_configuration_and_skipped_item_is_there(page: Page, study: Study) -> None:
    text = page.read
    for claim in study.claims:
        assert claim.statement in text
        assert claim.evidence in text
    badges = [a["class"] for tag, a in page.elements if tag == "span" and "badge" in (a.get("class") or "")]
    assert badges == [f"badge {claim.verdict.replace(' ', '-')}" for claim in study.claims]
    for model in study.models:
        assert model.sha256 in text
        assert set(model.baseline["configuration"]) <= set(page.text)
    for what, reason in study.skipped:
        assert what in text
        assert reason in text


def test_tables_hold_the_studys_numbers_exactly(html: str, study: Study) -> None:
    cells = set(re.findall(r'data-(?:value|high)="([^"]+)"', with_long_tables(html)))
    for model in study.models:
        frames = (
            model.baseline,
            model.layers,
            model.heads,
            model.pruning,
            model.heads_at,
            model.rank_correlation,
            model.comparisons,
            model.agreement,
            model.svd_correlation,
            model.removals,
        )
        for frame in frames:
            for column in frame.select_dtypes("number"):
                numbers = frame[column].to_numpy(dtype=float, na_value=np.nan)
                assert {repr(float(value)) for value in numbers} <= cells
        assert repr(model.crps_ratio) in cells


def test_a_row_reads_as_its_numbers(html: str, study: Study) -> None:
    row = study.models[0].layers.iloc[0]
    text = f"{100 * row['crps_change']:+.3g}"[:4]
    assert re.search(
        rf"<td>{re.escape(row['address'])}</td>(?:(?!</tr>).)*>{re.escape(text)}[\d.]* %</td>", html
    )


def test_layouts_differ_but_traces_do_not(page: Page) -> None:
    assert len(page.figures()) == 1 + 3 + 2 + 3 + 2 * 3
    for figure in page.figures():
        used = {trace.get("xaxis", "x").replace("x", "xaxis") for trace in figure["data"]}
        assert used <= figure["wide"].keys()
        assert used <= figure["narrow"].keys()
        assert figure["narrow"]["height"] >= figure["wide"]["height"]


def test_text_from_outside_stays_text() -> None:
    evil = f"{MARKUP} </script><b>x <!-- {{{{ 7 * 7 }}}} a & b \"c\" 'd'"
    model = dataclasses.replace(make_model("plain", layers=2, heads=2), name=evil, family=evil, sha256=evil)
    examples = tuple(dataclasses.replace(e, configuration=evil, ablation=evil) for e in model.examples)
    frames = {"baseline": model.baseline.assign(configuration=evil), "examples": examples}
    study = make_study(dataclasses.replace(model, **frames), skipped=((evil, evil),))
    study = dataclasses.replace(study, suite=evil, manifest={evil: evil})
    page = Page(render_report(study))
    clean = Page(render_report(make_study(make_model("plain", layers=2, heads=2), skipped=(("a", "b"),))))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in clean.elements]
    assert evil in page.read
    for figure in page.figures():
        assert MARKUP not in json.dumps(figure)


def test_an_error_while_rendering_leaves_the_old_file(
    little: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(figures, "heads_at_bars", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(little, path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("moment", ["fdopen", "replace"])
def test_a_kill_while_writing_leaves_the_old_file(
    little: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    real = atomic.os.fdopen

    class Torn:
        def __init__(self, handle: int, *args: object, **kwargs: object) -> None:
            self.file = real(handle, "wb")

        def __enter__(self) -> Torn:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[:1000])
            raise KeyboardInterrupt

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, moment, Torn if moment == "fdopen" else interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(little, path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_writing_replaces_the_file_whole(study: Study, little: Study, tmp_path: Path, html: str) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(study, path)
    assert path.read_text(encoding="utf-8").replace(f"{path.parent}/", "study/") == html
    write_report(little, path)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_page_says_how_many_samples_were_drawn() -> None:
    sampling = dataclasses.replace(make_model("sampler", layers=1, heads=1), samples=12)
    text = Page(render_report(make_study(sampling, make_model("other", layers=1, heads=1)))).text
    assert "12 samples" in text
    assert "quantiles" in text


def test_one_model_is_not_compared_with_itself() -> None:
    assert "side by side" not in render_report(make_study(make_model("only", layers=1, heads=1)))


def test_one_layer_nothing_to_prune(little: Study) -> None:
    drawn = json.dumps([figure["wide"] for figure in Page(render_report(little)).figures()])
    assert "none has middle layers" in drawn
    assert "NaN" not in drawn


def test_nothing_measured_at_all() -> None:
    model = make_model("empty", layers=1, heads=1)
    frames = ("baseline", "layers", "heads", "rank_correlation", "pruning", "heads_at", "comparisons")
    frames += ("agreement", "svd_correlation", "removals", "mlps")
    bare = dataclasses.replace(
        model,
        examples=(),
        plan=None,
        mase_ratio=float("nan"),
        **{name: getattr(model, name).iloc[:0] for name in frames},
    )
    page = Page(render_report(dataclasses.replace(make_study(bare), claims=())))
    assert [tag for tag, _ in page.elements].count("table") == 2  # models and checkpoints
    drawn = json.dumps(page.figures())
    for reason in ("No layer was", "No model was pruned", "heads@ was not", "No forecast was", "No head was"):
        assert reason in drawn
    assert "No claim was tested." in page.read


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_changes_that_are_not_finite_are_gaps_and_named_in_tables(broken: float) -> None:
    model = make_model("broken", layers=4, heads=2)
    frames = {}
    for name in ("layers", "heads", "pruning"):
        frame: pd.DataFrame = getattr(model, name).copy()
        frame.loc[frame.index[1], ["mase_change", "crps_change"]] = broken
        frames[name] = frame
    text = render_report(make_study(dataclasses.replace(model, **frames)))
    assert ("n/a" if np.isnan(broken) else "inf %") in text
    layers = Page(text).figures()[1]
    assert sum(np.isnan(values(layers))) == 2  # one gap in each metric
    assert not any(np.isinf(values(layers)))


def test_configurations_without_change_are_drawn() -> None:
    """All effects exactly zero: no logarithm of nothing."""
    model = make_model("zero", layers=2, heads=2)
    frames = {
        n: getattr(model, n).assign(mase_change=0.0, crps_change=0.0) for n in ("layers", "heads", "pruning")
    }
    page = Page(render_report(make_study(dataclasses.replace(model, **frames))))
    assert set(values(page.figures()[1])) == {0.0}


def test_all_configurations_are_named_in_the_pictures(page: Page) -> None:
    drawn = json.dumps([figure["wide"] for figure in page.figures()])
    assert all(configuration in drawn for configuration in CONFIGURATIONS)


def test_intervals_are_in_the_tables_beside_what_they_are_of(html: str, study: Study) -> None:
    row = study.models[0].pruning.iloc[0]
    low, high = row["mase_low"], row["mase_high"]
    words = between(low, high)
    assert re.search(
        rf'data-value="{re.escape(repr(float(row["mase_change"])))}">[^<]*</td>'
        rf'<td data-value="{re.escape(repr(float(low)))}" '
        rf'data-high="{re.escape(repr(float(high)))}">{re.escape(words)}</td>',
        html,
    )
    assert words.startswith(f"{100 * low:+.2f} to ")
    text = Page(html).read
    assert "0.610 to 1.210" in text  # of the ratio to Seasonal Naive


def test_a_sentence_about_rankings_says_no_more_than_its_interval() -> None:
    model = make_model("m", layers=4, heads=4)
    row = model.comparisons[model.comparisons["strategy"] == "svd-low-to-high"].index
    for low, high, words in (
        (-0.02, 0.01, "no difference is shown"),
        (-0.02, -0.01, "attention maps choose better"),
        (0.01, 0.02, "stable rank chooses better"),
        (float("nan"), float("nan"), "no difference is shown"),
    ):
        table = model.comparisons.copy()
        table.loc[row, ["low", "high"]] = low, high
        (fact,) = svd_facts(dataclasses.replace(model, comparisons=table))
        assert f"; {words}." in fact


def test_the_page_says_how_many_windows_scores_rest_on(page: Page) -> None:
    assert "61 calibration windows" in page.read
