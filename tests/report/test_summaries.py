"""Digest, words, terminal and the static picture."""

from __future__ import annotations

import dataclasses
import io
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade_study import ENCODER_DECODER, make_model, make_study
from rich.console import Console

from tsprune.errors import TspruneError
from tsprune.report import print_summary, write_picture
from tsprune.report.answer import studied, sure
from tsprune.report.digest import extreme_layers, heads_at_totals, pruning_at, tally
from tsprune.report.study_page import render_report
from tsprune.report.words import (
    claims_headline,
    layer_finding,
    parameters,
    percent,
    pruning_finding,
    ratio,
    windows_of,
)
from tsprune.studies.study_result import Study


def printed(study: Study, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO())
    print_summary(study, console)
    return console.file.getvalue()


def test_pruning_at_takes_the_nearest_percent() -> None:
    model = make_model("m")
    point = pruning_at(model, 33)
    assert point is not None
    rows = model.pruning[model.pruning.percent == 30].set_index("strategy")["crps_change"]
    assert point.percent == 30
    assert point.changes["high-to-low"].value == rows["high-to-low"]
    compared = model.comparisons.set_index(["percent", "metric", "versus"]).loc[(30, "CRPS", "unpruned")]
    chance = point.changes["random"]
    assert (chance.value, chance.low, chance.high) == tuple(compared[["difference", "low", "high"]])
    assert point.draws == tuple(sorted(rows["random"]))
    assert pruning_at(make_model("tiny", layers=1)) is None


def test_extreme_layers_by_hand() -> None:
    layers = pd.DataFrame(
        {
            "stack": ["stack"] * 4,
            "layer": [0, 1, 2, 2],
            "unit": ["both", "both", "both", "mlp"],
            "address": ["stack.0", "stack.1", "stack.2", "stack.2.mlp"],
            "crps_change": [0.5, float("nan"), -0.01, 9.0],
        }
    )
    extremes = extreme_layers(dataclasses.replace(make_model("m"), layers=layers))
    assert extremes is not None
    assert [(e.layer, e.change.value) for e in extremes] == [("stack.0", 0.5), ("stack.2", -0.01)]
    assert extreme_layers(dataclasses.replace(make_model("m"), layers=layers.iloc[1:2])) is None


def test_heads_at_totals_add_up() -> None:
    model = make_model("m", stacks=ENCODER_DECODER, layers=3, heads=4)
    totals = heads_at_totals(model).set_index(["stack", "attention"])
    assert (totals["heads"] == 12).all()
    assert len(totals) == 3
    for (stack, attention), row in totals.iterrows():
        at = model.heads_at
        here = at[(at["stack"] == stack) & (at["attention"] == attention)]
        for selection in ("test", "calibration"):
            assert row[selection] == here[here.selection == selection]["heads_at"].sum()


def test_notes_of_a_model_stand_among_the_findings_and_in_the_terminal() -> None:
    model = dataclasses.replace(make_model("m"), notes=("m: 3 heads of group attention are not measured",))
    assert "m: 3 heads of group attention are not measured." in render_report(make_study(model))
    assert "3 heads of group attention are not measured" in printed(make_study(model))


def test_windows_that_a_budget_left_out_are_not_counted() -> None:
    model = make_model("m")
    few, fewer = (dataclasses.replace(model, baseline=model.baseline.assign(windows=n)) for n in (2, 1))
    whole, configurations = make_study(model), len(model.baseline)
    every = f"{whole.windows} windows"
    assert windows_of(whole) == every
    assert windows_of(make_study(few)) == f"{2 * configurations} of {every}"
    study = make_study(few, fewer)
    partial = f"{configurations} to {2 * configurations} of {every}"
    assert f"how much worse {partial} of real series are forecast" in studied(study)
    assert f"{partial} of {configurations} configurations in all" in sure(study)[0]
    assert partial in " ".join(printed(study).split())


def test_all_claims_tested_count(study: Study) -> None:
    assert tally(study, "bolt-pocket") == (1, 1, 0)
    assert tally(study, "unknown") == (0, 0, 0)
    open_ = dataclasses.replace(study.claims[1], verdict="undecided")
    more = dataclasses.replace(study, claims=(*study.claims, open_, open_))
    assert tally(more, open_.model) == (1, 1, 2)
    assert "Of 7 claims tested, 3 confirmed, 2 refuted, 2 undecided; 2 not applicable." in claims_headline(
        more
    )


def test_the_sentences_quote_the_studys_numbers(study: Study) -> None:
    assert "Of 5 claims tested, 3 confirmed, 2 refuted, 0 undecided; 2 not applicable." in claims_headline(
        study
    )
    for model in study.models:
        point = pruning_at(model)
        assert point is not None
        for strategy in ("high-to-low", "random"):
            assert percent(point.changes[strategy].value) in pruning_finding(model)
        extremes = extreme_layers(model)
        assert extremes is not None
        assert all(percent(one.change.value) in layer_finding(model) for one in extremes)
    single = make_model("tiny", layers=1, heads=1)
    assert pruning_finding(single) == layer_finding(single) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0612, "+6.12 %"),
        (-0.004, "-0.40 %"),
        (0.2345, "+23.4 %"),
        (31.5, "+3,150 %"),
        (float("nan"), "n/a"),
    ],
)
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


def test_other_numbers() -> None:
    assert percent(float("inf")) == "+inf %"
    assert parameters(205_000_000) == "205 M"
    assert parameters(999) == "999"
    assert (ratio(0.7), ratio(float("nan"))) == ("0.700", "n/a")


@pytest.mark.parametrize("width", [100, 160])
def test_the_terminal_summary_fits_and_is_complete(study: Study, width: int) -> None:
    text = printed(study, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    for claim in study.claims:
        assert claim.statement in text
        assert claim.verdict in text
    for model in study.models:
        assert model.name in text
        assert ratio(model.crps_ratio) in text
        point = pruning_at(model)
        assert point is not None
        assert percent(point.changes["low-to-high"].value) in text


def test_on_80_columns_names_and_numbers_stay_whole() -> None:
    names = ("bundled:chronos-bolt", "google/timesfm-2.5-200m-pytorch", "bundled:timesfm", "Toto-Open-Base")
    stacks = [ENCODER_DECODER, ENCODER_DECODER, (("stack", ("self",)),), (("stack", ("time", "variate")),)]
    models = [
        make_model(name, stacks=one, seed=i) for i, (name, one) in enumerate(zip(names, stacks, strict=True))
    ]
    text = printed(make_study(*models), width=80)
    lines = text.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in text
    for model in models:
        # in every table, and no row of a table without the name of what it is about
        assert sum(line.startswith(model.name) for line in lines) >= 4
        worst, best = extreme_layers(model) or ()
        point = pruning_at(model)
        assert point is not None
        for change in (worst.change, best.change, *point.changes.values()):
            for number in (change.value, change.low, change.high):
                assert percent(number).removesuffix(" %") in text
        assert percent(point.draws[-1]) in text


def test_the_terminal_survives_edges_and_markup() -> None:
    odd = dataclasses.replace(
        make_model("[bold red]x[/]", layers=1, heads=1), crps_ratio=float("nan"), mase_ratio=float("nan")
    )
    study = make_study(
        odd, make_model("a/very/long/path/to/a/checkpoint-" + "x" * 90), skipped=(("[a]", "[/b]"),)
    )
    text = printed(study)
    assert "[bold red]x[/]" in text
    assert "[a]: [/b]" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def test_the_picture_is_svg_and_reproducible(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    write_picture(study, first)
    write_picture(study, second)
    assert first.read_bytes() == second.read_bytes()
    root = ElementTree.parse(first).getroot()
    assert root.tag.endswith("svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "b.svg"]
    assert first.stat().st_size < 1_000_000


def test_the_picture_of_little(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = dataclasses.replace(make_model("$x^", layers=1, heads=1), examples=())
    broken = model.layers.assign(crps_change=np.nan)
    write_picture(make_study(dataclasses.replace(model, layers=broken)), tmp_path / "p.svg")
    assert (tmp_path / "p.svg").stat().st_size > 0


def test_without_matplotlib_the_error_says_what_to_install(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(TspruneError, match="install it with: pip install"):
        write_picture(study, tmp_path / "p.svg")
    assert not list(tmp_path.iterdir())
