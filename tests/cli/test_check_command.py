"""`tsprune check`: its exit codes, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.shell import Runner, refused
from tsprune.deployment import Exported
from tsprune.models import Forecaster

SUITE = ("--configs", "us_employment/M/short", "--measure", "stable_rank")


def test_exit_codes(run: Runner, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    written = run("check", model, "--baseline", path, "--write-baseline", *SUITE, "--json")
    assert (written.code, written.result) == (0, {"out": str(path), "measured": ["stable_rank"]})
    good = run("check", model, "--baseline", path, *SUITE, "--json")
    assert good.code == 0
    assert [row["verdict"] for row in good.result["measures"]] == ["holds"]
    content = json.loads(path.read_text())
    content["stable_rank"] = {name: value / 2 for name, value in content["stable_rank"].items()}
    path.write_text(json.dumps(content))
    bad = run("check", model, "--baseline", path, *SUITE)
    assert bad.code == 1
    assert "Shown to be worse: stable_rank." in bad.out
    assert run("check", model, "--baseline", path, *SUITE, "--max-drift", "200%").code == 0
    assert run("check", model, "--baseline", model, *SUITE).code == 0
    refused(
        run("check", model, "--baseline", path, "--configs", "us_*", "--measure", "scores"), "other windows"
    )
    refused(run("check", model, "--baseline", tmp_path / "none.json", *SUITE), "no baseline")
    refused(run("check", model, "--baseline", tmp_path, "--write-baseline", *SUITE), "is a folder")
    refused(run("check", model, "--baseline", path, "--measure", "speed"), "speed")


def test_an_exported_model_has_scores_and_latency_but_no_heads(
    run: Runner, deployed: tuple[Forecaster, Exported], tmp_path: Path
) -> None:
    model, folder = deployed[0], deployed[1].name
    model.save(tmp_path / "model")
    table = tmp_path / "mine.csv"
    rows = [
        f"{name},{step},{(step * place) % 7}" for place, name in enumerate("abc", 2) for step in range(40)
    ]
    table.write_text("\n".join(["unique_id,ds,y", *rows]))
    own = ("--data", table, "--horizon", 3, "--freq", "D")
    found = run("check", folder, "--baseline", tmp_path / "model", *own, "--max-slowdown", "10000%", "--json")
    assert found.code == 0, found.err
    assert [row["measure"] for row in found.result["measures"]] == ["MASE", "CRPS", "windows", "latency"]
    assert all(abs(row["change"]) < 1e-4 for row in found.result["measures"][:3])
    reasons = {one["what"]: one["reason"] for one in found.json["skipped"]}
    assert reasons.keys() >= {"stable_rank", "redundancy"}
    assert "an exported model has no heads" in reasons["redundancy"]
    path = tmp_path / "baseline.json"
    written = run("check", folder, "--baseline", path, "--write-baseline", *own, "--json")
    assert written.result["measured"] == ["scores", "latency"]
    again = run("check", folder, "--baseline", path, *own, "--measure", "scores")
    assert again.code == 0
    assert "Nothing is shown to be worse." in again.out
