"""A tiny grid from end to end: trained, stopped, gone on with, measured, written down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain import loop
from pretrain.families.supervision import Supervision
from pretrain.laboratory import results
from pretrain.laboratory.measures import COLUMNS, components
from pretrain.laboratory.objectives import opened
from pretrain.laboratory.plan import Architecture, Condition, Run
from pretrain.laboratory.running import carry_out, state_of, train_run
from pretrain.laboratory.windows import Windows, evenly
from tests.suites import configuration
from tsprune.data import Suite, training
from tsprune.data.training import Source
from tsprune.errors import TspruneError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 6)
    monkeypatch.setattr(training, "WINDOWS_PER_SERIES", 2)
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)


def tiny(architecture: Architecture = "timesfm", seed: int = 0) -> Run:
    return Run(
        Condition(
            f"tiny-{architecture}",
            "null",
            "tiny",
            architecture=architecture,
            layers=2,
            width=64 if architecture == "moirai2" else 32,
            context=128,
            steps=5,
            batch_size=3,
            source=Source("periodic", shards=1),
            supervision=Supervision(layer_dropout=0.2) if architecture == "timesfm" else Supervision(),
        ),
        seed,
    )


def windows() -> Windows:
    suite = Suite("pocket", (configuration("first/D/short", [80, 70, 75, 65], horizon=6),))
    other = Suite("gift-eval", (configuration("third/D/short", [50, 60], horizon=4),))
    return Windows(suite, evenly(suite, 2), (), (other,), (("chaos", "left out here"),))


class StopError(Exception):
    pass


def run(one: Run, folder: Path, *, stop: str | None = None) -> list[str]:
    """Carries a run out in `folder`; stopped where a line begins with `stop`, after the time."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if stop is not None and line.startswith(stop):
            raise StopError

    carry_out([one], folder / "out", folder=folder / "results", windows=windows(), say=say)
    return said


def test_stopped_and_gone_on_with_it_is_the_same_run(tmp_path: Path) -> None:
    one = tiny()
    run(one, tmp_path / "whole")
    for stop in ("3/5", "5/5", "heads"):  # in training, after its last step, while it is measured
        with pytest.raises(StopError):
            run(one, tmp_path / "parts", stop=f"{one.name} {stop}")
        assert state_of(one, tmp_path / "parts/out", tmp_path / "parts/results") != "finished"
    run(one, tmp_path / "parts")
    whole, parts = (tmp_path / name / "results" for name in ("whole", "parts"))
    assert (whole / f"{one.name}.csv").read_bytes() == (parts / f"{one.name}.csv").read_bytes()
    records = [json.loads((folder / f"{one.name}.json").read_text()) for folder in (whole, parts)]
    assert records[0]["checkpoint_sha256"] == records[1]["checkpoint_sha256"]
    assert records[0]["loss"] == records[1]["loss"]
    assert [step for step, _ in records[0]["loss"]] == [1, 2, 3, 4, 5]
    assert state_of(one, None, parts) == "finished"
    assert run(one, tmp_path / "parts") == []  # neither trained nor measured again


@pytest.mark.parametrize("architecture", ["chronos2", "chronos-bolt", "moirai2"])
def test_every_architecture_is_trained_and_measured(architecture: Architecture, tmp_path: Path) -> None:
    one = tiny(architecture)
    train_run(one, tmp_path, lambda line: None)
    model = opened(one.condition, tmp_path / "checkpoint")
    assert model.context_length == one.condition.context
    assert len(model.anatomy.components("layer")) == one.condition.layers
    assert {site.heads for _, site in model.anatomy.sites()} == {one.condition.heads}
    rows = components(model, windows().whole)
    assert len(rows) == 3 * len([c for c in model.anatomy.components() if c.kind != "head"])
    assert all(np.isfinite(row[-1]) for row in rows)


def test_the_table_is_long_and_its_summary_has_a_row_a_run(tmp_path: Path) -> None:
    rows = [("pocket", "score", "", "MASE", 0.8), ("pocket", "score", "first/D/short", "MASE", np.nan)]
    rows += [
        ("pocket", "set", f"heads 28% and 2 MLPs, random {i}", "MASE", x) for i, x in enumerate((0.1, 0.3))
    ]
    for seed in (0, 1):
        known = {"run": tiny(seed=seed).name, "loss": [[1, 0.5], [2, 0.25]], "measured": {"version": 1}}
        results.write(tiny(seed=seed), pd.DataFrame(rows, columns=list(COLUMNS)), known, tmp_path)
    table = results.table(tmp_path)
    assert list(table.columns) == ["run", *COLUMNS]
    assert len(table) == 2 * (len(rows) + 2)
    assert table.loc[table["measure"] == "loss", "value"].tolist() == [0.5, 0.25] * 2
    assert table["unit"].eq("").sum() == 2  # not read as missing
    assert table["value"].isna().sum() == 2
    summary = results.summary(table)
    assert list(summary.index) == ["tiny-timesfm-s0", "tiny-timesfm-s1"]
    assert summary["MASE"].tolist() == [0.8, 0.8]
    assert summary["random"].tolist() == pytest.approx([0.2, 0.2])
    assert len(results.records(tmp_path)) == 2


def test_nothing_is_finished_in_the_beginning(tmp_path: Path) -> None:
    assert len(results.table(tmp_path)) == 0
    assert not results.is_finished(tiny(), tmp_path)


def test_the_state_is_told(tmp_path: Path) -> None:
    one = tiny()
    out, folder = tmp_path / "out", tmp_path / "results"
    assert state_of(one, out, folder) == "planned"
    with pytest.raises(StopError):
        run(one, tmp_path, stop=f"{one.name} 3/5")
    assert state_of(one, out, folder) == "step 2"
    with pytest.raises(StopError):
        run(one, tmp_path, stop=f"{one.name} scores")
    assert state_of(one, out, folder) == "trained"


def test_measurements_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    run, out, folder = tiny(), tmp_path / "run", tmp_path / "results"
    with pytest.raises(TspruneError, match="is not measured; run it first"):
        results.require_measured(run, out, folder)
    folder.mkdir()
    (out / results.WEIGHTS).parent.mkdir(parents=True)
    (out / results.WEIGHTS).write_bytes(b"weights")
    record = folder / f"{run.name}.json"
    record.write_text(json.dumps({"checkpoint_sha256": hashlib.sha256(b"weights").hexdigest()}))
    results.require_measured(run, out, folder)
    record.write_text(json.dumps({"checkpoint_sha256": hashlib.sha256(b"other").hexdigest()}))
    with pytest.raises(TspruneError, match="not the checkpoint that was measured"):
        results.require_measured(run, out, folder)
