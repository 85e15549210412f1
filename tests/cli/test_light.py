"""Help, the version and mistakes are answered before anything large is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import tsprune
from tsprune import cli

LARGE = ["torch", "pandas", "scipy", "gluonts", "plotly", "matplotlib", "transformers"]

# runs every command line of stdin in one process; a line of what each gave
PROGRAM = f"""
import contextlib, io, json, sys
from tsprune.cli import main

for arguments in json.load(sys.stdin):
    sys.argv = ["tsprune", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    large = [name for name in {LARGE} if name in sys.modules]
    print(json.dumps([code, out.getvalue(), err.getvalue(), large]))
"""

Answer = tuple[int, str, str, list[str]]


def answers(*lines: list[str], where: Path) -> list[Answer]:
    """(exit code, stdout, stderr, large modules that were imported by then) of each command line."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
        cwd=where,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def commands() -> list[str]:
    return [str(command.name) for command in cli.app.registered_commands]


def test_help_and_version(tmp_path: Path) -> None:
    pages = [["--help"], *([name, "--help"] for name in commands())]
    *helped, version, nothing = answers(*pages, ["--version"], [], where=tmp_path)
    for line, (code, out, err, large) in zip(pages, helped, strict=True):
        assert (code, err, large) == (0, "", []), line
        assert "Usage:" in out
    assert version == (0, f"tsprune {tsprune.__version__}\n", "", [])
    assert (nothing[0], nothing[3]) == (2, [])


def test_mistakes_are_answered_before_anything_large_is_imported(tmp_path: Path) -> None:
    """Every mistake that the arguments, or the paths in them, show."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("text")
    model, out = "bundled:timesfm", ["--out", "new"]
    mistakes = {
        ("nonsense",): "No such command",
        ("evaluate",): "Missing argument",
        ("evaluate", model, "--nonsense"): "No such option",
        ("evaluate", model, "--batch-size", "0"): "--batch-size",
        ("evaluate", model, "--device", "abacus"): "abacus",
        ("evaluate", model, "--dtype", "int8"): "float32, bfloat16, float16",
        ("evaluate", model, "--out", "file"): "is a file",
        ("evaluate", model, "--data", "nowhere"): "nowhere",
        ("evaluate", model, "--data", "folder"): "no GIFT-Eval dataset",
        **{(command, "nothing"): "nothing" for command in ("study", "evaluate", "anatomy", "rank", "sweep")},
        ("explain", "bundled:nothing"): "chronos-bolt",
        ("explain", "folder"): "holds no checkpoint",
        ("explain", "file"): "is a file",
        ("explore", model, "--out", "folder"): "is a folder",
        ("explore", model, "--port", "70000"): "--port",
        ("explore", model, "--data", "nowhere"): "nowhere",
        ("heads-at", "no/model"): "no hub model",
        ("heads-at", model, "--metric", "RMSE"): "MASE, CRPS",
        ("heads-at", model, "--max-loss", "much"): "1% or 0.01",
        ("heads-at", model, "--by", "block_influence"): "stable_rank",
        ("rank", model, "--by", "size"): "stable_rank",
        ("rank", model, "--kind", "mlp"): "block_influence",
        ("sweep", model, "--kind", "neuron"): "head, mlp, attention, layer",
        ("sweep", model, "--mode", "noise"): "zero, mean, resample",
        ("sweep", model, "--screen", "--dry-run"): "--screen",
        ("explain", model, "--head", "stack.1"): "decoder.3.cross.head.5",
        ("results", "nothing"): "no results store",
        ("results", "file", "--export", "x.xlsx"): ".parquet or .csv",
        ("prune", model, *out): "--remove",
        ("prune", model, "--remove", "stack.1", "--out", "taken"): "not empty",
        ("prune", model, "--plan", "nothing", *out): "no plan",
        ("prune", model, "--saving", "30%", "--objective", "joy", *out): "latency, flops, parameters",
        ("prune", model, "--saving", "-1%", *out): "1% or 0.01",
        ("prune", model, "--remove", "stack.1", "--save-dtype", "int8", *out): "bfloat16",
        ("recover", "nothing", "--teacher", model, *out): "nothing",
        ("recover", model, "--teacher", model, "--precision", "int8", *out): "auto, float32, bfloat16",
        ("latency", model, "nothing"): "nothing",
        ("verify", model): "--against",
        ("verify", model, "--against", "nothing"): "no table",
    }
    found = answers(*map(list, mistakes), where=tmp_path)
    for (line, words), (code, out_, err, large) in zip(mistakes.items(), found, strict=True):
        assert (code, out_, large) == (2, "", []), (line, err)
        assert words in err, (line, err)
        assert err.count("\n") == 1, line
