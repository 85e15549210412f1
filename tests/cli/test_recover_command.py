"""`tsprune recover`."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

import tsprune
from tests.shell import Runner
from tests.tiny import TINY
from tsprune.cli.recover_command import recover_command
from tsprune.data import training
from tsprune.pruning import compare
from tsprune.pruning.recovery import recover

WHERE = ["--configs", "us_employment/M/short"]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and a pruned version of it."""
    TINY["tiny-timesfm"](tmp_path / "model")
    model = tsprune.load(str(tmp_path / "model"), device="cpu")
    tsprune.prune(model, ["stack.1.mlp", "stack.0.self.head.1"]).save(tmp_path / "small")
    return tmp_path / "model", tmp_path / "small"


def test_the_commands_defaults_are_the_functions() -> None:
    function = inspect.signature(recover).parameters
    command = inspect.signature(recover_command).parameters
    shared = (function.keys() & command.keys()) - {"small", "teacher"}
    assert shared >= {"steps", "histories", "learning_rate", "patience", "history", "stream"}
    for name in shared:
        assert command[name].default == function[name].default, name


def test_recover_writes_what_recover_returns(
    run: Runner,
    folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    model, small = folders
    how = ["--steps", 4, "--histories", 4, "--learning-rate", 0.003, "--resume", tmp_path / "state"]
    result = run("recover", small, "--teacher", model, "--out", tmp_path / "out", *how, *WHERE, "--json")
    assert (result.code, result.err) == (0, "")
    teacher, pruned = (tsprune.load(str(path), device="cpu") for path in (model, small))
    suite = tsprune.data.pocket().only(WHERE[1:])
    expected = tsprune.recover(pruned, teacher, suite=suite, steps=4, histories=4, learning_rate=0.003)
    loaded = tsprune.load(str(tmp_path / "out"), device="cpu")
    assert loaded.origin is not None
    assert expected.origin is not None
    assert loaded.origin.recovery == expected.origin.recovery
    assert result.result["recovery"]["steps"] == 4
    history = [np.arange(60.0)]
    np.testing.assert_array_equal(
        loaded.forecast(history, 7).quantiles, expected.forecast(history, 7).quantiles
    )
    _, report = tsprune.data.split(suite)
    card = (tmp_path / "out" / "README.md").read_text()
    for what, other in (("", expected), ("before recovery: ", pruned)):
        for name, (was, now, change) in compare(teacher, other, report).evidence().items():
            row = {"figure": what + name, "before": was, "after": now, "text": change}
            assert row in result.result["measured"]
            assert f"| {what}{name} | {was:.4g} | {now:.4g} | {change} |" in card
    # the state is there: the same again is written, not trained
    again = run("recover", small, "--teacher", model, "--out", tmp_path / "again", *how, *WHERE)
    assert again.code == 0
    assert "README.md" in again.out
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "again")]
    assert weights[0] == weights[1]


def test_mistakes_are_one_line(run: Runner, folders: tuple[Path, Path], tmp_path: Path) -> None:
    model, small = folders
    new = ["--out", tmp_path / "new", *WHERE]
    (tmp_path / "text").write_text("no state")
    for arguments, message in (
        ([small, "--teacher", "bundled:timesfm", *new], "was not made from the weights of bundled:timesfm"),
        ([small, "--teacher", "bundled:chronos-bolt", *new], "is a timesfm model"),
        ([model, "--teacher", model, *new], "is not pruned"),
        ([small, "--teacher", model, *new, "--steps", 0], "Invalid value for '--steps'"),
        ([small, "--teacher", model, *new, "--resume", tmp_path / "text"], "is not the state of a recovery"),
        ([small, "--teacher", model, "--out", model], "is not empty; name a new folder"),
    ):
        result = run("recover", *arguments)
        assert (result.code, result.out) == (2, "")
        assert message in result.err
        assert result.err.count("\n") == 1
        assert not (tmp_path / "new").exists()
