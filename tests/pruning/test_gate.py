"""`tsprune.check` fails only for what is shown, and a baseline's file holds all that it compares."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.suites import configuration, small_suite, tiny
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.pruning import Baseline
from tsprune.pruning.gate import HOLDS, UNDECIDED, WORSE
from tsprune.schema import Table

LIGHT: tuple[Any, ...] = ("scores", "stable_rank")


@functools.cache
def measured() -> Baseline:
    return Baseline.measure(tiny("tiny-timesfm"), small_suite(), measures=LIGHT)


def rows(table: Table) -> pd.DataFrame:
    return table.frame.set_index("measure")


def test_a_file_holds_every_measurement(tmp_path: Path) -> None:
    """From the file as from memory, to the last bit; a model does not differ from its own baseline."""
    model, suite, path = tiny("tiny-timesfm"), small_suite(), tmp_path / "baseline.json"
    Baseline.measure(model, suite).save(path)
    before = Baseline.load(path)
    assert before.stable_rank == measured().stable_rank
    assert set(before.redundancy) == {"stack.0.self", "stack.1.self", "stack.2.self"}
    assert before.machine.startswith("cpu")
    assert len(before.latency) == 20
    found = tsprune.check(model, path, suite=suite, max_slowdown=100)
    table = rows(found)
    assert table.index.tolist() == ["MASE", "CRPS", "windows", "stable_rank", "redundancy", "latency"]
    assert (table.loc[:"redundancy", ["change", "low", "high"]] == 0).all(axis=None)  # type: ignore[misc]
    assert set(table["verdict"]) == {HOLDS}
    assert table.loc["windows", "value"] == len(suite) - 1  # one window has no history
    other = dataclasses.replace(before, machine="another")
    moved = tsprune.check(model, other, suite=suite, measures=["latency"])
    assert not len(moved)
    assert "another machine" in dict(moved.skipped)["latency"]


def test_a_ruined_model_is_worse_and_a_better_one_holds() -> None:
    model, suite = tsprune.load("bundled:timesfm"), tsprune.data.pocket().only(["us_employment/M/short"])
    ruined = tsprune.prune(model, "stack.0")
    against = tsprune.check(ruined, model, suite=suite, measures=LIGHT)
    changes = tsprune.pruning.compare(model, ruined, suite).change
    assert {"MASE", "CRPS"} <= set(against.worse)
    for metric, change in changes.items():
        assert rows(against).loc[metric, ["change", "low", "high"]].tolist() == pytest.approx(
            [change.value, change.low, change.high]
        )
    assert set(rows(tsprune.check(model, ruined, suite=suite, measures=["scores"]))["verdict"]) == {HOLDS}
    allowed = tsprune.check(
        ruined, model, suite=suite, measures=["scores"], max_loss=rows(against)["low"]["MASE"]
    )
    assert rows(allowed).loc["MASE", "verdict"] == UNDECIDED


def test_latency_against_a_file_needs_rounds_apart() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    now = Baseline.measure(model, suite, measures=["latency"])
    quick, slow = (np.min(now.latency) / 1000, np.max(now.latency) * 1000)
    for times, verdict in (((quick,) * 20, WORSE), ((slow,) * 20, HOLDS), ((quick, slow) * 10, UNDECIDED)):
        before = dataclasses.replace(now, latency=times)
        assert rows(tsprune.check(model, before, suite=suite, measures=["latency"]))["verdict"].tolist() == [
            verdict
        ]


def test_heads_become_diffuse() -> None:
    """Twice the stable rank of every head is a drift of 100 %; the heads in common count."""
    before = measured()
    halved = {name: value / 2 for name, value in before.stable_rank.items()}
    found = tsprune.check(
        tsprune.prune(tiny("tiny-timesfm"), "stack.1.self.head.0"),
        dataclasses.replace(before, stable_rank=halved),
        suite=small_suite(),
        measures=["stable_rank"],
    )
    assert found.worse == ("stable_rank",)
    assert rows(found).loc["stable_rank", ["change", "low", "high"]].tolist() == pytest.approx([1, 1, 1])


def test_windows_that_are_lost_are_worse() -> None:
    before = measured()
    name, scored = next(iter(before.scores.items()))
    row = len(small_suite().configurations[1])  # of the second configuration: its window without history
    assert name == "first/D/short"
    second = before.scores["second/D/short"]
    whole = dataclasses.replace(
        second, rows=np.arange(row), statistics=second.statistics.select(np.array([0, 0, 1, 2]))
    )
    grown = dataclasses.replace(before, scores={name: scored, "second/D/short": whole})
    found = tsprune.check(tiny("tiny-timesfm"), grown, suite=small_suite(), measures=["scores"])
    assert found.worse == ("windows",)
    assert rows(found).loc["windows", "change"] == pytest.approx(1 / 9)


def test_a_single_series_decides_nothing() -> None:
    suite = Suite("one", (configuration("one/D/short", [40, 50], 5, owners=[0, 0]),))
    before = Baseline.measure(tiny("tiny-timesfm"), suite, measures=["scores"])
    found = rows(
        tsprune.check(
            tsprune.prune(tiny("tiny-timesfm"), "stack.1"), before, suite=suite, measures=["scores"]
        )
    )
    assert found.loc[["MASE", "CRPS"], "verdict"].tolist() == [UNDECIDED] * 2


def test_other_windows_and_other_draws_are_refused() -> None:
    with pytest.raises(TspruneError, match="other windows"):
        tsprune.check(tiny("tiny-timesfm"), measured(), suite=Suite("empty", ()))
    with pytest.raises(TspruneError, match="seed 0"):
        tsprune.check(tiny("tiny-timesfm"), measured(), suite=small_suite(), measures=["stable_rank"], seed=1)
    with pytest.raises(TspruneError, match="unknown measure 'speed'"):
        tsprune.check(tiny("tiny-timesfm"), measured(), suite=small_suite(), measures=["speed"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda x: x.update(version=9), "version 9"),
        (lambda x: x.pop("scores"), "'scores' is missing"),
        (lambda x: x.update(model=3), "model is not text"),
        (lambda x: x.update(scores=[]), "not a baseline"),
        (lambda x: x.update(protocol={}), "protocol"),
        (lambda x: x["stable_rank"].update(a="3"), "stable_rank holds '3'"),
        (lambda x: x.update(latency={"a": 1}), "latency is not a list"),
        (lambda x: x["scores"]["first/D/short"]["rows"].append(0), "rows of first/D/short"),
        (lambda x: x["scores"]["first/D/short"]["rows"].pop(), "unlike lengths"),
        (lambda x: x["scores"]["first/D/short"].pop("target_count"), "'target_count' is missing"),
        (lambda x: x["scores"]["first/D/short"].update(target_count=[True] * 5), "holds True"),
    ],
)
def test_damaged_files_are_refused(edit: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    measured().save(tmp_path / "baseline.json")
    content = json.loads((tmp_path / "baseline.json").read_text())
    edit(content)
    (tmp_path / "baseline.json").write_text(json.dumps(content))
    with pytest.raises(TspruneError, match=message):
        Baseline.load(tmp_path / "baseline.json")
