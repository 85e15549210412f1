"""Help, the version and mistakes are answered before anything large is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import tsprune
from tsprune import cli

LARGE = ["torch", "numpy", "pandas", "scipy", "gluonts", "plotly", "matplotlib", "transformers"]

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
