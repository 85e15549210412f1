"""The cost of a study in the shell: told beforehand, limited by a budget, on fewer windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from tests.shell import Runner, refused
from tests.tiny import TINY
from tsprune.cli.options import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), (" 2M ", 120), ("1m30s", 90)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "30", "0s", "-1m", "1 day", "m30", "1h1h", "nan", "1e9h", "9" * 400 + "h"]
)
def test_other_words_are_no_times(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 90s, 30m or 2h"):
        duration(text)


def test_a_dry_run_lists_every_stage_and_writes_nothing(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TINY["tiny-timesfm"](tmp_path / "model")
    common = ["study", "model", "--configs", "us_*/M/short", "--dry-run", "--store", "s"]
    found = run(*common, "--json")
    assert (found.code, found.err) == (0, "")
    rows = {row["stage"]: row for row in found.result["estimate"]}
    assert {"scores", "ablating", "headline", "attention", "effects", "chaos", "report"} <= set(rows)
    assert all(row["seconds"] >= 0 and row["peak_bytes"] > 10**8 for row in rows.values())
    few = run(*common, "--json", "--most-windows", "4", "--no-explain").result["estimate"]
    assert "effects" not in {row["stage"] for row in few}
    forecasts = {row["stage"]: row["forecasts"] for row in few}
    assert 0 < forecasts["ablating"] <= rows["ablating"]["forecasts"]
    assert "In all about 0:0" in run(*common).out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_budget_that_is_no_time_is_refused(run: Runner) -> None:
    refused(run("study", "bundled:timesfm", "--budget", "soon"), "write 90s, 30m or 2h")
    refused(run("study", "bundled:timesfm", "--most-windows", "0"), "--most-windows")


def test_a_study_within_a_budget_reports_what_is_missing(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TINY["tiny-timesfm"](tmp_path / "model")
    how = ["--configs", "us_*/M/short", "--most-windows", "8", "--no-explain", "--budget", "0.001s"]
    found = run("study", "model", "--json", *how)
    assert found.code == 0, found.err
    arguments = found.result["manifest"]["arguments"]
    assert arguments["budget"] == 1.0
    assert found.result["manifest"]["suite"]["windows"] == 8
    assert any("not measured within the budget" in one["reason"] for one in found.json["skipped"])
    assert "not measured within the budget" in (tmp_path / "study" / "report.html").read_text()


def test_an_explanation_is_estimated_too(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TINY["tiny-timesfm"](tmp_path / "model")
    common = ["explain", "model", "--configs", "us_*/M/short", "--dry-run", "--out", "page.html"]
    stages = [row["stage"] for row in run(*common, "--json").result["estimate"]]
    assert {"attention", "lens", "effects", "chaos"} <= set(stages)
    fewer = run(*common, "--json", "--no-effects", "--no-chaos").result["estimate"]
    assert {row["stage"] for row in fewer} == set(stages) - {"effects", "chaos"}
    assert "In all about 0:0" in run(*common).out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_pruning_is_estimated_by_its_own_stages(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TINY["tiny-timesfm"](tmp_path / "model")
    common = ["prune", "model", "--configs", "us_*/M/short", "--dry-run"]
    search, measure = ["counting", "pricing", "removing"], ["measuring"]
    for how, stages in (
        (["--saving", "30%"], [*search, *measure]),
        (["--max-loss", "1%", "--curve", "c.html"], [*search, "searching", *measure, "curve"]),
        (["--remove", "stack.0", "--measure"], ["removing", *measure]),
    ):
        found = run(*common, *how, "--json")
        assert (found.code, found.err) == (0, "")
        rows = found.result["estimate"]
        assert [row["stage"] for row in rows] == stages
        assert all(row["seconds"] > 0 and row["peak_bytes"] > 10**8 for row in rows)
    assert "In all about 0:0" in run(*common, "--remove", "stack.0").out
    refused(run(*common, "--remove", "stack.9"), "stack.9")
    refused(run("prune", "model", "--remove", "stack.0"), "--out FOLDER")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
