"""Sweeps with a store: the same numbers, nothing computed twice, and nothing lost by a kill."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from pandas.testing import assert_frame_equal

from tests.suites import shared_suite, small_suite, tiny
from tests.sweeping import Counting, assert_equal, some_ablations
from tests.tiny import TINY
from tsprune import reference, study
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecast, Forecaster, load
from tsprune.run_options import RunOptions
from tsprune.studies.score_agreement import measure_scores
from tsprune.studies.study_result import results_table
from tsprune.sweeps import CLEAN, Store, estimate, make_plan, run, single_ablations, sweep
from tsprune.sweeps.sweep_result import SweepResult

MODELS = ["tiny-chronos-bolt", "tiny-timesfm"]
BATCHES = 3 + 2  # of the small suite's 5 and 3 windows, two a batch


def assert_same_forecasts(a: SweepResult, b: SweepResult) -> None:
    assert a.forecasts.keys() == b.forecasts.keys()
    for key, forecast in a.forecasts.items():
        np.testing.assert_array_equal(forecast.quantiles, b.forecasts[key].quantiles)
        assert forecast.levels == b.forecasts[key].levels


@pytest.mark.parametrize("name", MODELS)
def test_the_store_changes_no_number(name: str, tmp_path: Path) -> None:
    model, suite = Counting(tiny(name)), small_suite()
    ablations = some_ablations(model)
    keep = [CLEAN, ablations[2]]
    without = run(model, suite, ablations, batch_size=2, keep=keep)
    calls = model.calls
    first = run(model, suite, ablations, batch_size=2, keep=keep, store=tmp_path / "s")
    assert model.calls == 2 * calls
    again = run(model, suite, ablations, batch_size=2, keep=keep, store=tmp_path / "s")
    # nothing is forecast again; recording the reference takes one forecast of a batch
    assert model.calls == 2 * calls
    for result in (first, again):
        assert_equal(result, without)
        assert_same_forecasts(result, without)
        assert list(result.scores) == list(without.scores)
        assert result.failed == {}


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    model, suite = Counting(tiny("tiny-timesfm")), small_suite()
    heads = list(single_ablations(model, "head").values())
    with Store(tmp_path / "s") as store:
        run(model, suite, heads[:3], batch_size=2, store=store)
        assert model.calls == BATCHES * (1 + 3)
        run(model, suite, heads[1:5], batch_size=2, store=store)
        # two new ones, and a clean pass to compare them to
        assert model.calls == BATCHES * (1 + 3) + BATCHES * (1 + 2)
        assert len(store.frame()) == 2 * 6
        # another protocol
        run(model, suite, heads[:3], batch_size=3, store=store)
        assert model.calls == BATCHES * 7 + (2 + 1) * (1 + 3)
        # other windows
        before = model.calls
        suite.configurations[1].targets[0, 0] += 1
        run(model, suite, heads[:3], batch_size=2, store=store)
        assert model.calls == before + 2 * (1 + 3)
        assert len(store.frame()) == 2 * 6 + 2 * 4 + 4


def test_a_configuration_in_other_company_is_another_cell(tmp_path: Path) -> None:
    """Its forecasts may differ in their last bits; one that shares no batch is not computed again."""
    model, whole = Counting(tiny("tiny-timesfm")), shared_suite()
    heads = list(single_ablations(model, "head").values())[:2]
    part = Suite("part", whole.configurations[1:])
    with Store(tmp_path / "s") as store:
        run(model, part, heads, batch_size=4, store=store)
        assert model.calls == (1 + 1) * 3
        run(model, whole, heads, batch_size=4, store=store)
        assert model.calls == (1 + 1) * 3 + 2 * 3  # the two batches of horizon 5
        assert len(store.frame()) == (2 + 3 - 1) * 3
        # the same windows in other company are the same row of a leaderboard
        names = store.leaderboard({"ablation": "none"})["configuration"].tolist()
        assert sorted(names) == ["first/D/short", "second/D/short", "third/D/short"]
        assert_equal(
            run(model, part, heads, batch_size=4, store=store), run(model, part, heads, batch_size=4)
        )


def test_of_a_shared_batch_only_missing_cells_are_added(tmp_path: Path) -> None:
    model, suite = Counting(tiny("tiny-timesfm")), shared_suite()
    heads = list(single_ablations(model, "head").values())[:2]
    expected = run(model, suite, heads, batch_size=4, store=tmp_path / "s")
    database = sqlite3.connect(tmp_path / "s")
    lost = "configuration = 'third/D/short' AND ablation = 'stack.0.self.head.1'"
    with database:
        database.execute(f"DELETE FROM cells WHERE {lost}")
        database.execute("UPDATE cells SET finished = 'before'")
    model.calls = 0
    assert_equal(run(model, suite, heads, batch_size=4, store=tmp_path / "s"), expected)
    assert model.calls == 2 * 2  # two batches, each clean and ablated
    new = database.execute("SELECT configuration, ablation FROM cells WHERE finished != 'before'").fetchall()
    database.close()
    assert new == [("third/D/short", "stack.0.self.head.1")]


def test_kept_forecasts_are_made_up_for(tmp_path: Path) -> None:
    model, suite = Counting(tiny("tiny-timesfm")), small_suite()
    (ablation,) = single_ablations(model, "mlp", components="stack.1.mlp").values()
    run(model, suite, [ablation], store=tmp_path / "s")
    before = model.calls
    kept = run(model, suite, [ablation], keep=[ablation], store=tmp_path / "s")
    assert model.calls == before + 2 * 2
    assert_same_forecasts(kept, run(model, suite, [ablation], keep=[ablation]))
    before = model.calls
    assert run(model, suite, [ablation], store=tmp_path / "s").forecasts == {}
    assert_same_forecasts(run(model, suite, [ablation], keep=[ablation], store=tmp_path / "s"), kept)
    assert model.calls == before


class Interrupted(Counting):
    """Stopped by hand at a certain forecast."""

    stop_at = 10**9

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return super().forecast(contexts, horizon)


@pytest.mark.parametrize("stop_at", [0, 1, 4, 5, 9, 13, 19])
def test_an_interrupted_sweep_goes_on_batch_by_batch(stop_at: int, tmp_path: Path) -> None:
    model, suite = Interrupted(tiny("tiny-timesfm")), small_suite()
    mlps = list(single_ablations(model, "mlp").values())
    expected = run(model, suite, mlps, batch_size=2)
    model.calls, model.stop_at = 0, stop_at
    with pytest.raises(KeyboardInterrupt):
        run(model, suite, mlps, batch_size=2, store=tmp_path / "s")
    model.calls, model.stop_at = 0, 10**9
    resumed = run(model, suite, mlps, batch_size=2, store=tmp_path / "s")
    per_batch = 1 + len(mlps)
    assert model.calls == (BATCHES - stop_at // per_batch) * per_batch
    assert_equal(resumed, expected)


# --- a process killed at any instant -------------------------------------------------------------

SWEEP = """
import json, os, sys
from tests.suites import small_suite
from tests.sweeping import Counting
from tsprune.models import load
from tsprune.sweeps import Store, run, single_ablations
model = Counting(load(sys.argv[1], device="cpu"))
heads, mlps = single_ablations(model, "head"), single_ablations(model, "mlp", mode="resample")
ablations = [*heads.values(), *mlps.values()]
run(model, small_suite(), ablations, batch_size=2, store=sys.argv[2],
    progress=lambda stage, done, total: print(done, total, flush=True))
"""


def test_a_killed_process_loses_one_batch_at_most(tmp_path: Path) -> None:
    checkpoint, path = tmp_path / "model", tmp_path / "s"
    TINY["tiny-timesfm"](checkpoint)
    model, suite = Counting(load(str(checkpoint), device="cpu")), small_suite()
    ablations = [
        *single_ablations(model, "head").values(),
        *single_ablations(model, "mlp", mode="resample").values(),
    ]
    per_batch = 1 + len(ablations)
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(checkpoint), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert process.stdout is not None
    # in the middle of the third batch: one configuration has two of its batches done
    for line in process.stdout:
        done, total = map(int, line.split())
        if done >= 2 * per_batch + 5:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert total == BATCHES * per_batch
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    parts = database.execute("SELECT count(*) FROM parts").fetchone()[0]
    cells = database.execute("SELECT count(*) FROM cells").fetchone()[0]
    database.close()
    expected = run(model, suite, ablations, batch_size=2)
    model.calls = 0
    assert_equal(run(model, suite, ablations, batch_size=2, store=path), expected)
    # whole batches are there (the process may have got further before the signal came)
    left = model.calls - 1  # the reference's
    assert left % per_batch == 0
    finished = BATCHES - left // per_batch
    assert 2 <= finished < BATCHES
    assert (parts, cells) == (
        (2 * per_batch, 0) if finished == 2 else (per_batch * (finished - 3), per_batch)
    )


# --- what fails ----------------------------------------------------------------------------------


def short_reference(model: Forecaster) -> Any:
    """A reference too short to resample from."""
    return reference(model, [np.arange(32.0)], horizon=1)


def test_a_failed_cell_is_recorded_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    good, bad = Ablation(model.anatomy.select("stack.0.mlp")), model.anatomy.select("stack.1.mlp")
    resampled = Ablation(bad, "resample")
    short = short_reference(model)
    with pytest.raises(TspruneError, match="reference windows of at least"):
        run(model, suite, [resampled, good], reference=short)
    with Store(tmp_path / "s") as store:
        result = run(model, suite, [resampled, good], reference=short, store=store, batch_size=2)
        assert set(result.failed) == {(resampled, c.name) for c in suite.configurations}
        assert "first/D/short, stack.1.mlp (resample): resampling needs" in caplog.text
        change = result.change(resampled)
        np.testing.assert_equal([*change.metrics.values(), change.spearman], [np.nan] * 3)
        assert result.change(good) == run(model, suite, [good], batch_size=2).change(good)
        frame = store.frame({"status": "failed"})
        assert frame["ablation"].tolist() == ["stack.1.mlp"] * 2
        assert frame["error"].str.contains("reference windows of at least").all()
        assert len(store.frame({"status": "done"})) == 4
        # with a reference that fits it is another cell; the same one is tried again
        assert run(model, suite, [resampled], store=store, batch_size=2).failed == {}
        assert len(run(model, suite, [resampled], reference=short, store=store, batch_size=2).failed) == 2
        assert len(store.frame()) == 8


def test_a_clean_pass_that_fails_costs_its_configuration(tmp_path: Path) -> None:
    model, suite = Counting(tiny("tiny-timesfm")), small_suite()
    good = Ablation(model.anatomy.select("stack.0.mlp"))
    first = model.module.get_submodule(model.anatomy.stacks[0].blocks[0].module)

    def refuse(_module: object, args: tuple[Any, ...]) -> None:
        if model.calls > 2:
            raise RuntimeError("out of\nmemory")

    hook = first.register_forward_pre_hook(refuse)
    try:
        result = run(model, suite, [good], store=tmp_path / "s")
    finally:
        hook.remove()
    assert set(result.failed.values()) == {"RuntimeError: out of memory"}
    assert set(result.failed) == {(CLEAN, "second/D/short"), (good, "second/D/short")}
    assert list(result.rows) == ["first/D/short"]
    # once it works, all is as if nothing had happened
    assert_equal(run(model, suite, [good], store=tmp_path / "s"), run(model, suite, [good]))


def test_a_sweep_of_which_everything_fails_says_why(tmp_path: Path) -> None:
    model, suite = tiny("tiny-timesfm"), Suite("one", small_suite().configurations[:1])
    first = model.module.get_submodule(model.anatomy.stacks[0].blocks[0].module)

    def refuse(_module: object, args: tuple[Any, ...]) -> None:
        raise RuntimeError("no")

    hook = first.register_forward_pre_hook(refuse)
    try:
        with pytest.raises(TspruneError, match="no window of one could be forecast: first/D/short: Runtime"):
            run(model, suite, [], store=tmp_path / "s")
    finally:
        hook.remove()


def test_the_table_lists_what_failed(tmp_path: Path) -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    frame = sweep(
        model, suite, kind="mlp", mode="resample", reference=short_reference(model), store=tmp_path / "s"
    )
    assert frame["mase_change"].isna().all()
    names = [c.name for c in suite.configurations]
    expected = {f"{address} on {name}" for address in frame["address"] for name in names}
    assert {what for what, _ in frame.failed} == expected
    assert len(frame.failed) == len(expected)
    assert sweep(model, suite, kind="mlp").failed == ()


# --- memory --------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    """As if it had been two batches, and every forecast counted once."""
    model, suite = Counting(tiny("tiny-timesfm")), small_suite()
    (mlp,) = single_ablations(model, "mlp", components="stack.1.mlp").values()
    resampled = dataclasses.replace(mlp, mode="resample")
    recorded = reference(model, [np.arange(128.0)])
    expected = run(model, suite, [mlp], batch_size=1, keep=[mlp])
    first = model.module.get_submodule(model.anatomy.stacks[0].blocks[0].module)

    def full(_module: object, args: tuple[Any, ...]) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    seen: list[tuple[int, int]] = []
    hook = first.register_forward_pre_hook(full)
    try:
        result = run(
            model,
            suite,
            [mlp],
            batch_size=2,
            keep=[mlp],
            store=tmp_path / "s",
            progress=lambda _stage, *counts: seen.append(counts),
        )
        with pytest.raises(TspruneError, match="resample needs a smaller batch size"):
            run(model, suite, [resampled], batch_size=2, reference=recorded)
        # the clean pass is in the store already, so only the new ablation fails
        both = run(model, suite, [resampled], batch_size=2, reference=recorded, store=tmp_path / "s")
    finally:
        hook.remove()
    assert_equal(result, expected)
    assert_same_forecasts(result, expected)
    assert seen == [(done, 2 * BATCHES) for done in range(1, 2 * BATCHES + 1)]
    assert {cell for cell, _ in both.failed} == {resampled}


def test_the_limit_of_memory_changes_no_number() -> None:
    model, suite = tiny("tiny-chronos-bolt"), small_suite()
    ablations = some_ablations(model)
    assert_equal(run(model, suite, ablations, memory=0), run(model, suite, ablations))


# --- plans and estimates -------------------------------------------------------------------------


def test_a_plan_counts_what_a_run_does(tmp_path: Path) -> None:
    model, suite = Counting(tiny("tiny-timesfm")), small_suite()
    heads = list(single_ablations(model, "head").values())
    with Store(tmp_path / "s") as store:
        run(model, suite, heads[:2], batch_size=2, store=store)
        plan = make_plan(model, suite, heads, batch_size=2, store=store)
        found = estimate(model, plan)
        assert (found.cells, found.finished) == (2 * 10, 2 * 3)
        before = model.calls
        run(model, suite, heads, batch_size=2, store=store)
        assert found.forecasts == model.calls - before == BATCHES * (1 + 7)
        nothing = estimate(model, make_plan(model, suite, heads, batch_size=2, store=store))
        assert (nothing.finished, nothing.forecasts, nothing.seconds) == (20, 0, 0)
    assert found.probed > 3  # two horizons, histories of up to 32 and 64 steps
    assert found.seconds > 0
    assert found.peak_bytes > 10**8


def test_a_study_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    model, suite = Interrupted(tiny("tiny-timesfm")), small_suite()
    measure_scores(model, suite, RunOptions())
    scored, model.calls = model.calls, 0  # the scores' forecasts are kept as tables
    steps: dict[str, int] = {}  # stage -> forecasts

    def note(stage: str, done: int, total: int) -> None:
        steps[stage.rpartition(": ")[2]] = int(total)

    expected = results_table(study([model], suite, explain=False, progress=note))
    calls, model.calls = model.calls, 0
    per_configuration = steps["ablating"] // 2
    model.stop_at = scored + per_configuration + 3
    with pytest.raises(KeyboardInterrupt):
        study([model], suite, explain=False, store=tmp_path / "s")
    model.calls, model.stop_at = 0, 10**9
    table = results_table(study([model], suite, explain=False, store=tmp_path / "s"))
    assert per_configuration > 10
    # what was finished is not computed again; fewer, as clean forecasts of a store serve several stages
    assert 0 < model.calls <= calls - scored - per_configuration
    untimed = [column for column in expected.columns if not column.startswith("seconds")]
    assert_frame_equal(table[untimed], expected[untimed], check_exact=True)
