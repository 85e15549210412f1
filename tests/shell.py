"""Runs commands in this process, and writes small datasets for them."""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from tsprune import cli


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(self.out, parse_constant=refuse)

    @property
    def result(self) -> Any:
        return self.json["result"]


class Runner:
    """Runs `tsprune.cli.main` in this process, as the console script does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *args: object) -> Result:
        self.monkeypatch.setattr(sys, "argv", ["tsprune", *map(str, args)])
        self.capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = self.capfd.readouterr()
        return Result(code, captured.out, captured.err)


def save(folder: Path, targets: list[list[float]], freq: str = "W-SUN") -> None:
    """One dataset in GIFT-Eval's layout."""
    datasets.disable_progress_bars()
    rows = {
        "item_id": [str(i) for i in range(len(targets))],
        "start": [datetime.datetime(2020, 1, 1)] * len(targets),
        "freq": [freq] * len(targets),
        "target": targets,
    }
    features = datasets.Features(
        {
            "item_id": datasets.Value("string"),
            "start": datasets.Value("timestamp[s]"),
            "freq": datasets.Value("string"),
            "target": datasets.Sequence(datasets.Value("float32")),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder))


def refused(result: Result, *words: str) -> None:
    """Exit code 2, one line on stderr that says what is wrong, nothing on stdout."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    for word in words:
        assert word in result.err
