"""The command line: help, JSON, and one line on stderr for every mistake."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import typer

import tsprune
from tests.tiny import TINY
from tsprune import cli

COMMANDS = ["study", "evaluate", "anatomy", "rank", "sweep", "heads-at", "prune", "latency", "models"]


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


@pytest.fixture
def gift(tmp_path: Path) -> Path:
    """A small copy: good series, one without an observed value, one too short."""
    rng = np.random.default_rng(0)
    good = [(10 + np.sin(np.arange(70)) + rng.random(70)).tolist() for _ in range(2)]
    save(tmp_path / "gift" / "saugeenday" / "W", [*good, [float("nan")] * 70, [1.0] * 8])
    return tmp_path / "gift"


def refused(result: Result, *words: str) -> None:
    """Exit code 2, one line on stderr that says what is wrong, nothing on stdout."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    for word in words:
        assert word in result.err


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(run: Runner, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert "Usage:" in result.out
    assert "--json" in result.out
    assert result.err == ""


def test_help_lists_every_command(run: Runner) -> None:
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert f" {command} " in result.out
    registered = typer.main.get_command(cli.app).commands
    assert set(registered) == set(COMMANDS)


# --- results -------------------------------------------------------------------------------------


def test_json_of_what_needs_no_data(run: Runner, model: Path) -> None:
    components = run("anatomy", model, "stack.*.self.head.0", "--json").json
    assert [c["address"] for c in components] == [f"stack.{layer}.self.head.0" for layer in range(3)]
    ranks = run("rank", model, "--json").json
    expected = tsprune.rank(tsprune.load(str(model)))
    assert [row["stable_rank"] for row in ranks] == expected["stable_rank"].tolist()
    known = run("models", "--json").json
    assert "bundled:timesfm" in known["bundled"]
    assert {family["family"] for family in known["families"]} >= {"chronos-bolt", "timesfm"}


def test_json_equals_the_api(run: Runner, model: Path, gift: Path) -> None:
    loaded, suite = tsprune.load(str(model)), tsprune.data.gift_eval(gift)
    where = ("--data", gift, "--json")
    evaluated = run("evaluate", model, *where)
    frame = tsprune.evaluate(loaded, suite)
    assert [row["MASE"] for row in evaluated.json["configurations"]] == frame["MASE"].tolist()
    assert set(evaluated.json["geometric_mean"]) == {"MASE", "CRPS"}
    assert evaluated.err == ""  # no progress bar where nobody watches
    swept = run("sweep", model, "--units", "mlp", "--only", "stack.1.*", *where).json
    assert [row["address"] for row in swept] == ["stack.1.mlp"]
    found = run("heads-at", model, "--percent", 5, "--metric", "CRPS", "--seed", 1, *where).json
    table = tsprune.heads_at(loaded, suite, 5, metric="CRPS", seed=1)
    assert [row["removed"] for row in found] == table["removed"].tolist()


def test_what_is_skipped_is_listed_with_its_reason(run: Runner, model: Path, gift: Path) -> None:
    expected = {
        "saugeen/W/short, series 3": "8 steps",
        "saugeen/W/short, window 2": "no observed value",
    }
    skipped = {tuple(pair) for pair in run("evaluate", model, "--data", gift, "--json").json["skipped"]}
    for what, reason in expected.items():
        assert any(name == what and reason in why for name, why in skipped)
    for command in (["evaluate"], ["sweep", "--units", "layer"], ["heads-at"]):
        result = run(command[0], model, *command[1:], "--data", gift)
        assert result.code == 0
        lines = result.err.splitlines()
        assert lines[0] == f"{len(skipped)} left out:"
        for what, reason in expected.items():
            assert any(what in line and reason in line for line in lines)


def test_tables_for_people(run: Runner, model: Path, gift: Path, tmp_path: Path) -> None:
    result = run("evaluate", "seasonal-naive", "--data", gift, "--out", tmp_path / "new" / "scores")
    assert result.code == 0
    assert "saugeen/W/short" in result.out
    assert "MASE 1.0000, CRPS 1.0000" in result.out
    assert (tmp_path / "new" / "scores" / "all_results.csv").read_text().startswith("dataset,model,")
    assert "stack.2.self.head.1" in run("rank", model).out
    assert run("anatomy", model, "stack.*.mlp").out.split() == [f"stack.{i}.mlp" for i in range(3)]
    assert "timesfm" in run("anatomy", model).out


def test_a_study_leaves_report_results_and_manifest(
    run: Runner, model: Path, gift: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    result = run("study", model, "--data", gift, "--out", folder, "--percent", 2, "--json")
    assert result.code == 0
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "report.html", "results.parquet"]
    assert result.json["manifest"] == json.loads((folder / "manifest.json").read_text())
    assert {row["experiment"] for row in result.json["results"]} >= {"baseline", "layers", "heads", "claims"}
    again = run("study", model, "--data", gift, "--out", folder)
    assert again.code == 0
    assert "Report: " in again.out


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["study", "evaluate", "anatomy", "rank", "sweep", "heads-at"])
def test_an_unknown_model(run: Runner, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(command, "nonsense"), "nonsense")
    refused(run(command, "bundled:nonsense"), "nonsense", "bundled")
    assert list(tmp_path.iterdir()) == []


def test_unknown_names(run: Runner, model: Path, gift: Path) -> None:
    where = ("--data", gift)
    refused(run("anatomy", model, "stack.9.mlp"), "stack.9.mlp", "matches no component")
    refused(run("sweep", model, "--only", "stack.9.mlp", *where), "matches no component")
    refused(run("sweep", model, "--only", "stack.1.mlp", *where), "none that is a head")
    refused(run("sweep", model, "--units", "neuron", *where), "neuron", "head, mlp, attention, layer")
    refused(run("sweep", model, "--mode", "noise", *where), "noise", "zero, mean, resample")
    refused(run("heads-at", model, "--metric", "RMSE", *where), "RMSE", "MASE, CRPS")
    refused(run("heads-at", model, "--by", "size", *where), "size", "stable_rank")
    refused(run("rank", model, "--by", "size"), "size", "stable_rank")
    refused(run("evaluate", model, "--device", "abacus"), "abacus")
    refused(run("evaluate", model, "--configs", "x/*"), "x/*")
    refused(run("evaluate", model, "--configs", "x/*", *where), "x/*")


@pytest.mark.parametrize("command", ["study", "evaluate", "sweep", "heads-at"])
def test_missing_data(run: Runner, model: Path, command: str, tmp_path: Path) -> None:
    refused(run(command, model, "--data", tmp_path / "nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    refused(run(command, model, "--data", tmp_path / "empty"), "no GIFT-Eval dataset")


@pytest.mark.parametrize("command", ["study", "evaluate", "sweep", "heads-at"])
def test_data_that_hold_nothing_to_forecast(run: Runner, model: Path, command: str, tmp_path: Path) -> None:
    unknown, short, empty = (tmp_path / name for name in ("unknown", "short", "empty"))
    save(unknown / "saugeenday" / "W", [[float("nan")] * 70])
    save(short / "saugeenday" / "W", [[1.0, 2.0, 3.0]])
    save(empty / "saugeenday" / "W", [[1.0] * 30])
    (file,) = (empty / "saugeenday" / "W").glob("data-*.arrow")
    file.write_bytes(b"")
    out = ("--out", tmp_path / "out") if command in ("study", "evaluate") else ()
    refused(run(command, model, "--data", unknown, *out), "no observed value")
    refused(run(command, model, "--data", short, *out), "no windows", "3 steps")
    refused(run(command, model, "--data", empty, *out), file.name, "download")


@pytest.mark.parametrize("command", ["study", "evaluate"])
def test_an_output_folder_that_cannot_be(run: Runner, model: Path, command: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    refused(run(command, model, "--out", file), "is a file")
    refused(run(command, model, "--out", file / "below"), "cannot make the folder")
    assert file.read_text() == "precious"


def test_usage_errors_have_code_2(run: Runner, model: Path) -> None:
    for args in (["evaluate"], ["nonsense"], ["sweep", model, "--batch-size", 0]):
        result = run(*args)
        assert result.code == 2
        assert result.out == ""
        assert "Traceback" not in result.err


def test_the_module_as_a_process(model: Path) -> None:
    """As users start it: warnings, other packages' messages and tracebacks would show here."""
    command = [sys.executable, "-m", "tsprune.cli"]
    good = subprocess.run([*command, "rank", str(model), "--json"], capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    assert len(json.loads(good.stdout)) == 9
    bad = subprocess.run([*command, "rank", "nonsense"], capture_output=True, text=True)
    refused(Result(bad.returncode, bad.stdout, bad.stderr), "nonsense")
