"""`tsprune check`: its exit codes, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.shell import Runner, refused

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
