"""The command line: help, JSON, and one line on stderr for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

import tsprune
from tests.shell import Result, Runner, refused, save
from tsprune import cli, scores
from tsprune.cli.options import Shared
from tsprune.errors import TspruneError
from tsprune.explain.overview import EXPLAIN_SAMPLES, EXPLAIN_TOKEN_SAMPLES
from tsprune.extras import install
from tsprune.studies import STUDY_SAMPLES, STUDY_STEPWISE_SAMPLES
from tsprune.sweeps import Store

COMMANDS = [
    "study",
    "evaluate",
    "forecast",
    "anatomy",
    "rank",
    "sweep",
    "results",
    "explain",
    "explore",
    "heads-at",
    "prune",
    "recover",
    "export",
    "serve",
    "frontier",
    "check",
    "latency",
    "verify",
    "models",
]


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(run: Runner, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert "Usage:" in result.out
    assert "--json" in result.out
    assert result.err == ""


def test_help_states_how_many_paths_a_study_draws(run: Runner) -> None:
    text = " ".join(run("explain", "--help").out.replace("│", " ").split())
    assert f"by default {EXPLAIN_SAMPLES}, and {EXPLAIN_TOKEN_SAMPLES} by Chronos-T5." in text
    text = " ".join(run("study", "--help").out.replace("│", " ").split())
    assert f"by default {STUDY_SAMPLES}, and {STUDY_STEPWISE_SAMPLES} by Chronos-T5" in text


def test_help_lists_every_command(run: Runner) -> None:
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert f" {command} " in result.out
    registered = typer.main.get_command(cli.app).commands
    assert set(registered) == set(COMMANDS)


# --- results -------------------------------------------------------------------------------------


def test_json_of_what_needs_no_data(run: Runner, model: Path) -> None:
    components = run("anatomy", model, "stack.*.self.head.0", "--json").result["components"]
    assert [c["address"] for c in components] == [f"stack.{layer}.self.head.0" for layer in range(3)]
    ranks = run("rank", model, "--json").result["components"]
    expected = tsprune.rank(tsprune.load(str(model)))
    assert [row["stable_rank"] for row in ranks] == expected["stable_rank"].tolist()
    known = run("models", "--json").result
    assert "bundled:timesfm" in known["bundled"]
    assert {family["family"] for family in known["families"]} >= {"chronos-bolt", "timesfm"}


def test_ranking_by_what_needs_windows(run: Runner, model: Path, gift: Path) -> None:
    where = ("--data", gift)
    loaded, suite = tsprune.load(str(model)), tsprune.data.gift_eval(gift)
    for by, kind in (("attention_entropy", "head"), ("mase_change", "mlp")):
        found = run("rank", model, "--by", by, "--kind", kind, *where, "--json").result["components"]
        table = tsprune.rank(loaded, suite, by=by, kind=kind)  # type: ignore[arg-type]
        assert [row["address"] for row in found] == table["address"].tolist()
        assert [row["score"] for row in found] == pytest.approx(table["score"].tolist(), nan_ok=True)
        assert [row["rank"] for row in found] == table["rank"].tolist()
    shown = run("rank", model, "--by", "block_influence", "--kind", "layer", *where)
    assert "block influence" in shown.out
    assert "stack.2" in shown.out


def test_the_list_of_scores_needs_no_model(run: Runner) -> None:
    result = run("rank", "--list")
    assert result.code == 0
    for name, score in scores.SCORES.items():
        assert f"{name} ({', '.join(score.kinds)}; " in result.out


def test_heads_at_goes_on_from_its_store(run: Runner, model: Path, gift: Path, tmp_path: Path) -> None:
    where = ("--data", gift, "--by", "output_norm", "--json")
    plain = run("heads-at", model, *where).result
    first = run("heads-at", model, *where, "--store", tmp_path / "store.sqlite").result
    with Store(tmp_path / "store.sqlite") as store:
        finished = store.frame()["finished"].tolist()
    again = run("heads-at", model, *where, "--store", tmp_path / "store.sqlite").result
    assert plain == first == again
    with Store(tmp_path / "store.sqlite") as store:
        assert store.frame()["finished"].tolist() == finished


def test_json_equals_the_api(run: Runner, model: Path, gift: Path) -> None:
    loaded, suite = tsprune.load(str(model)), tsprune.data.gift_eval(gift)
    where = ("--data", gift, "--json")
    evaluated = run("evaluate", model, *where)
    frame = tsprune.evaluate(loaded, suite)
    assert [row["MASE"] for row in evaluated.result["configurations"]] == frame["MASE"].tolist()
    assert evaluated.result["geometric_mean"].keys() == {"MASE_ratio", "CRPS_ratio"}
    assert evaluated.err == ""  # no progress bar where nobody watches
    swept = run("sweep", model, "--kind", "mlp", "--components", "stack.1.*", *where).result["components"]
    assert [row["address"] for row in swept] == ["stack.1.mlp"]
    found = run("heads-at", model, "--max-loss", "5%", "--metric", "CRPS", "--seed", 1, *where).result
    table = tsprune.heads_at(loaded, suite, max_loss=0.05, metric="CRPS", seed=1)
    assert found["max_loss"] == 0.05
    assert [row["removed"] for row in found["sublayers"]] == table["removed"].tolist()


def test_what_is_skipped_is_listed_with_its_reason(run: Runner, model: Path, gift: Path) -> None:
    expected = {
        "saugeen/W/short, series 3": "8 steps",
        "saugeen/W/short, window 2": "no observed value",
    }
    listed = run("evaluate", model, "--data", gift, "--json").json["skipped"]
    skipped = {(item["what"], item["reason"]) for item in listed}
    for what, reason in expected.items():
        assert any(name == what and reason in why for name, why in skipped)
    for command in (["evaluate"], ["sweep", "--kind", "layer"], ["heads-at"]):
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
    result = run(
        "study", model, "--data", gift, "--out", folder, "--max-loss", "2%", "--json", "--no-explain"
    )
    assert result.code == 0
    files = {p.name for p in folder.iterdir()} - {"plan.json"}  # of a model that can lose something
    assert files == {"manifest.json", "report.html", "results.parquet"}
    assert result.result["manifest"] == json.loads((folder / "manifest.json").read_text())
    assert {row["experiment"] for row in result.result["results"]} >= {
        "baseline",
        "layers",
        "heads",
        "claims",
    }
    again = run("study", model, "--data", gift, "--out", folder)
    assert again.code == 0
    assert "Report: " in again.out


def test_a_study_with_a_frontier(
    run: Runner, model: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exports(*_: object, **__: object) -> None:
        raise TspruneError("not exported in this test")

    monkeypatch.setattr("tsprune.frontiers.frontier_points.exports", exports)
    folder = tmp_path / "study"
    how = ("study", model, "--data", table, "--horizon", 3, "--freq", "D", "--out", folder)
    how = (*how, "--no-explain", "--frontier")
    found = run(*how, "--json")
    assert found.code == 0, found.err
    points = found.result["frontier"]
    assert {row["model"] for row in points} == {str(model)}
    assert [row["batch"] for row in points if row["weights"] == "original"] == [1, 64]
    assert all(row["runtime"] == "torch" for row in points)
    skipped = {one["what"]: one["reason"] for one in found.json["skipped"]}
    assert skipped[f"{model}: original by onnx-fp32"] == "not exported in this test"
    page = (folder / "report.html").read_text()
    assert "What should be deployed?" in page
    assert "Batch 1, for a loss of at most 0" in page
    other = run(*how, "--seed", 1)  # the study is complete; its folder holds another frontier
    assert other.code == 0
    assert "holds a frontier of another seed" in " ".join(other.out.split())
    refused(run(*how, "--budget", "1m"), "--frontier is not part of --budget")


# --- stores --------------------------------------------------------------------------------------


def test_a_sweep_is_kept_and_looked_at(run: Runner, model: Path, gift: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    sweep = ("sweep", model, "--kind", "mlp", "--data", gift, "--store", store)
    before = run(*sweep, "--dry-run", "--json").result["estimate"]
    assert (before["cells"], before["finished"], before["forecasts"]) == (4, 0, 4)
    assert not store.exists()
    swept = run(*sweep, "--json")
    assert swept.json == run("sweep", model, "--kind", "mlp", "--data", gift, "--json").json
    after = run(*sweep, "--dry-run")
    assert "4 cells, 4 of them in the store" in after.out
    assert "0 forecasts" in after.out
    assert "estimates" in run("sweep", model, "--data", gift, "--dry-run").out
    assert run(*sweep, "--json").json == swept.json
    assert run(*sweep, "--quiet").err == ""

    cells = run("results", store, "--json").result["cells"]
    assert cells[0]["ablation"] == "none"  # the others are in the order in which they were finished
    assert {cell["ablation"] for cell in cells[1:]} == {f"stack.{i}.mlp" for i in range(3)}
    assert {cell["model"] for cell in cells} == {str(model)}
    evaluated = run("evaluate", model, "--data", gift, "--json").result["configurations"]
    assert [cells[0]["MASE"], cells[0]["CRPS"]] == [evaluated[0]["MASE"], evaluated[0]["CRPS"]]
    chosen = run("results", store, "--where", "ablation=stack.*", "--where", "status=done", "--json").result[
        "cells"
    ]
    assert chosen == cells[1:]
    shown = run("results", store)
    assert "4 cells, 0 failed" in shown.out
    assert "stack.2.mlp" in shown.out

    run("results", store, "--where", "ablation=stack.1.*", "--export", tmp_path / "new" / "cells.parquet")
    table = pd.read_parquet(tmp_path / "new" / "cells.parquet")
    assert table["CRPS"].tolist() == [cell["CRPS"] for cell in cells if cell["ablation"] == "stack.1.mlp"]
    assert "4 cells written" in run("results", store, "--export", tmp_path / "cells.csv").out
    exported = pd.read_csv(tmp_path / "cells.csv", float_precision="round_trip")
    assert exported["CRPS"].tolist() == [cell["CRPS"] for cell in cells]
    board, expected = tmp_path / "board.csv", tmp_path / "expected"
    written = run("results", store, "--where", "ablation=none", "--leaderboard", board)
    assert (written.code, "written" in written.out) == (0, True)
    run("evaluate", model, "--data", gift, "--out", expected)
    assert board.read_text() == (expected / "all_results.csv").read_text()


def test_failed_cells_are_named_and_make_the_exit_code_1(
    run: Runner, model: Path, gift: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real model that does not take it when nothing comes out of its third MLP."""
    store = tmp_path / "s.sqlite"
    sweep = ("sweep", model, "--kind", "mlp", "--data", gift, "--store", store)
    path = tsprune.load(str(model), device="cpu").anatomy.stacks[0].blocks[2].mlp.output

    def refuse(_module: object, _args: object, output: Any) -> None:
        if not output.any():
            raise RuntimeError("nothing\ncame out")

    def opened_model(_shared: object, name: str, *, device: str | None = None) -> Any:
        opened = tsprune.load(name, device="cpu")
        module = opened.module.get_submodule(path)
        # hooks run in order: this one after that of the ablation
        register = type(module).register_forward_hook

        def and_refuse(hook: Any, **how: Any) -> Any:
            handle = register(module, hook, **how)
            register(module, refuse)
            return handle

        module.register_forward_hook = and_refuse
        return opened

    with monkeypatch.context() as patched:
        patched.setattr(Shared, "load", opened_model)
        result = run(*sweep, "--json")
    assert result.code == 1
    assert [row["mase_change"] is None for row in result.result["components"]] == [False, False, True]
    assert "failed cells: 1" in result.err
    assert "  stack.2.mlp on saugeen/W/short: RuntimeError: nothing came out\n" in result.err
    failed = run("results", store, "--where", "status=failed", "--json").result["cells"]
    assert [(cell["ablation"], cell["error"]) for cell in failed] == [
        ("stack.2.mlp", "RuntimeError: nothing came out")
    ]
    again = run(*sweep, "--json")
    assert again.code == 0
    assert again.result["components"][:2] == result.result["components"][:2]
    assert (again.json["failed"], len(result.json["failed"])) == ([], 1)
    assert run("results", store, "--where", "status=failed", "--json").result["cells"] == []


def test_screening_estimates_what_a_sweep_measures(run: Runner, model: Path, gift: Path) -> None:
    where = ("sweep", model, "--data", gift, "--kind", "head", "--screen")
    loaded, suite = tsprune.load(str(model)), tsprune.data.gift_eval(gift)
    expected = scores.screen(loaded, suite, components="stack.*.self.head.*")
    found = run(*where, "--json").result["components"]
    assert [row["address"] for row in found] == expected["address"].tolist()
    assert [row["crps_change"] for row in found] == expected["crps_change"].tolist()
    assert "estimates" in run(*where).out
    refused(run(*where, "--dry-run"), "--screen")


def test_mistakes_about_stores(
    run: Runner, model: Path, gift: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, store = tmp_path / "text", tmp_path / "s"
    text.write_text("precious\n" * 100)
    for command in (["sweep", model, "--data", gift, "--store"], ["study", model, "--data", gift, "--store"]):
        refused(run(*command, text, *(["--out", tmp_path / "o"] if command[0] == "study" else [])), "damaged")
    refused(run("results", text), "damaged or not a results store")
    refused(run("results", tmp_path / "nothing"), "there is no results store")
    assert text.read_text().startswith("precious")
    assert not (tmp_path / "nothing").exists()
    run("sweep", model, "--kind", "mlp", "--data", gift, "--store", store)
    refused(run("results", store, "--where", "colour=red"), "no column 'colour'")
    refused(run("results", store, "--where", "ablation"), "COLUMN=GLOB")
    refused(run("results", store, "--export", tmp_path / "x.xlsx"), ".parquet or .csv")
    refused(run("results", store, "--export", text / "x.csv"), "cannot make the folder")
    refused(run("results", store, "--leaderboard", tmp_path / "x.csv"), "4 are selected", "--where")
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(run("sweep", model, "--data", gift, "--ray", "local"), install("ray"))


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
    refused(run("sweep", model, "--components", "stack.9.mlp", *where), "matches no component")
    refused(run("sweep", model, "--components", "stack.1.mlp", *where), "but no head")
    refused(run("sweep", model, "--kind", "neuron", *where), "neuron", "head, mlp, attention, layer")
    refused(run("sweep", model, "--mode", "noise", *where), "noise", "zero, mean, resample")
    refused(run("heads-at", model, "--metric", "RMSE", *where), "RMSE", "MASE, CRPS")
    refused(run("heads-at", model, "--by", "size", *where), "size", "stable_rank")
    refused(run("rank", model, "--by", "size"), "size", "stable_rank")
    refused(run("rank", model, "--kind", "mlp"), "stable_rank", "kind mlp has no", "block_influence")
    refused(run("rank", model, "--kind", "neuron"), "neuron", "head, mlp, attention, layer")
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
    assert len(json.loads(good.stdout)["result"]["components"]) == 9
    bad = subprocess.run([*command, "rank", "nonsense"], capture_output=True, text=True)
    refused(Result(bad.returncode, bad.stdout, bad.stderr), "nonsense")


# --- explain -------------------------------------------------------------------------------------

EMPLOYMENT = ("--configs", "*employment*", "--per-configuration", "2")


def test_explain_as_json_and_in_files(run: Runner, model: Path, tmp_path: Path) -> None:
    result = run("explain", model, *EMPLOYMENT, "--no-effects", "--json", "--out", tmp_path / "tables")
    assert result.code == 0, result.err
    assert len(result.result["heads"]) == 9
    assert result.result["by_share"] == []
    assert 0 <= result.result["heads"][0]["sharpness"] <= 1
    written = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"heads.csv", "profile.csv", "lens.csv", "attribution.csv"} <= written


def test_explain_prints_tables(run: Runner, model: Path) -> None:
    result = run("explain", model, *EMPLOYMENT)
    assert result.code == 0, result.err
    for title in ("residual stream", "share of the forecast by part", "without the sharpest heads"):
        assert title in result.out
    assert "…" not in result.out  # nothing is cut, although this terminal has 80 columns


def test_explain_as_a_page(run: Runner, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    result = run("explain", model, *EMPLOYMENT, "--no-effects", "--out", path)
    assert result.code == 0, result.err
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    text = path.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    assert "the sharpest" in text
    (tmp_path / "file").write_text("")
    failed = run("explain", model, *EMPLOYMENT, "--out", tmp_path / "file" / "page.html")
    assert failed.code == 2
    assert failed.err.startswith("error: ")


def test_explain_one_head(run: Runner, model: Path) -> None:
    head = "stack.1.self.head.2"
    result = run("explain", model, *EMPLOYMENT, "--no-effects", "--head", head)
    assert result.code == 0, result.err
    assert head in result.out
    assert "effective_keys" in result.out
    assert "attention by distance" in result.out
    for wrong in ("stack.1.mlp", "stack.1.self.head.*", "stack.9.self.head.0"):
        failed = run("explain", model, "--head", wrong)
        assert failed.code == 2
        assert failed.err.startswith("error: ")
