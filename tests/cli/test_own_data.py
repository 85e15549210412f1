"""`--data FILE` and the options of a user's own data, from the shell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.shell import Runner, refused, save
from tsprune.data import from_file


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    parts = [
        pd.DataFrame({"shop": shop, "day": days, "sold": np.arange(60.0) ** 1.5 % 7 + add})
        for add, shop in enumerate("ab")
    ]
    table = pd.concat([*parts, pd.DataFrame({"shop": ["c"], "day": ["2024-01-01"], "sold": [1.0]})]).drop(
        index=[20]
    )
    table.to_csv(path, index=False)
    return path


def test_a_table_is_scored(run: Runner, mine: Path) -> None:
    options = ("--horizon", 7, "--windows", 2, "--season", 7)
    result = run("evaluate", "seasonal-naive", "--data", mine, *options, "--json")
    suite = from_file(mine, horizon=7, windows=2, season=7)
    expected = tsprune.evaluate("seasonal-naive", suite).frame
    (row,) = result.result["configurations"]
    assert (row["configuration"], row["windows"]) == ("mine/D/7", 4)
    assert row["MASE"] == expected["MASE"].iloc[0]
    assert "1 times are too few" in result.json["skipped"][0]["reason"]


def test_a_dry_run_shows_what_was_understood(run: Runner, mine: Path) -> None:
    line = ("evaluate", "bundled:timesfm", "--data", mine, "--horizon", 7, "--dry-run")
    found = run(*line, "--json")
    assert found.result["about"] == "ids: shop; times: day; values: sold"
    (row,) = found.result["suite"]
    assert {name: row[name] for name in ("windows", "series", "gaps", "season", "longest")} == {
        "windows": 2, "series": 2, "gaps": 2, "season": 1, "longest": 53,
    }  # fmt: skip
    shown = run(*line)
    assert shown.code == 0
    assert "mine/D/7" in shown.out
    assert "Ids: shop; times: day; values: sold" in shown.out
    assert "c: " in shown.err


def test_several_targets_are_variates(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    pd.DataFrame({"day": days, "a": np.arange(60.0), "b": np.arange(60.0) % 7}).to_csv(path, index=False)
    line = ("evaluate", "bundled:toto", "--data", path, "--horizon", 7, "--dry-run")
    apart, together = run(*line), run(*line, "--target", "a", "--target", "b")
    assert "variates" not in apart.out
    assert "variates of one series" in together.out
    shown = run(*line, "--target", "a", "--target", "b", "--json").result["suite"]
    assert [row["num_variates"] for row in shown] == [2]
    split = run(*line, "--target", "a", "--target", "b", "--univariate")
    assert "variates of one series" not in split.out


def test_columns_are_named(run: Runner, mine: Path) -> None:
    named = ("--id-column", "shop", "--time-column", "day", "--target", "sold", "--freq", "D")
    found = run(
        "evaluate",
        "seasonal-naive",
        "--data",
        mine,
        "--horizon",
        7,
        *named,
        "--step",
        3,
        "--context",
        9,
        "--dry-run",
        "--json",
    )
    assert found.result["suite"][0]["longest"] == 9
    refused(
        run("evaluate", "seasonal-naive", "--data", mine, "--target", "sole"),
        "no column 'sole' for --target; columns: sold",
    )
    refused(
        run("evaluate", "seasonal-naive", "--data", mine),
        "the frequency D has no season to forecast; give --horizon",
    )


def test_other_data_have_windows_of_their_own(run: Runner, tmp_path: Path) -> None:
    save(tmp_path / "m4_weekly", [[float(step) for step in range(60)]])
    refused(run("evaluate", "seasonal-naive", "--horizon", 7), "--horizon belongs to a table of your own")
    words = "--id-column, --target belongs to a table of your own (--data FILE); GIFT-Eval has its own rules"
    refused(run("sweep", "bundled:timesfm", "--data", tmp_path, "--target", "y", "--id-column", "id"), words)


@pytest.mark.parametrize("options", [("--horizon", "0"), ("--freq", "often"), ("--windows", "x")])
def test_mistakes(run: Runner, mine: Path, options: tuple[str, str]) -> None:
    refused(run("evaluate", "seasonal-naive", "--data", mine, *options), options[0].strip("-")[:4])
