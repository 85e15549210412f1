"""Fixtures of the command line: a runner, a model's folder and a small copy of GIFT-Eval's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.shell import Runner, save
from tests.tiny import TINY


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Runner:
    monkeypatch.delenv("GIFT_EVAL", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Runner(monkeypatch, capfd)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    TINY["tiny-timesfm"](directory)
    return directory


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A file of four series of 60 steps."""
    path = tmp_path / "mine.csv"
    rows = [f"{name},{step},{step * place % 7}" for place, name in enumerate("abcd", 2) for step in range(60)]
    path.write_text("\n".join(["unique_id,ds,y", *rows]))
    return path


@pytest.fixture
def gift(tmp_path: Path) -> Path:
    """A small copy: good series, one without an observed value, one too short."""
    rng = np.random.default_rng(0)
    good = [(10 + np.sin(np.arange(70)) + rng.random(70)).tolist() for _ in range(2)]
    save(tmp_path / "gift" / "saugeenday" / "W", [*good, [float("nan")] * 70, [1.0] * 8])
    return tmp_path / "gift"
