"""Ctrl-C and readers that go away: the exit code says so, nothing else does, and finished work is kept."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import write_timesfm

COMMAND = (sys.executable, "-c", "from tsprune.cli import main; main()")
SECONDS = 120  # on a busy machine


def started(*arguments: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell starts it.

    Background jobs ignore SIGINT, and their children inherit that; a command of a shell does not.
    """
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def interrupted(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Ctrl-C as soon as the command is that far; it ends with 130, and no word of it."""
    end = time.monotonic() + SECONDS
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (130, "", "")


def batches(store: Path) -> int:
    """Finished cells, and batches of others, of a store that another process writes to."""
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            tables = ("cells", "parts")
            return sum(database.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in tables)
    except sqlite3.Error:  # not made yet
        return 0


def test_a_sweep_that_is_stopped_keeps_what_it_finished(tmp_path: Path) -> None:
    write_timesfm(tmp_path / "model")
    store = tmp_path / "store"
    sweep = ("sweep", str(tmp_path / "model"), "--batch-size", "1", "--store", str(store))
    interrupted(started(*sweep), lambda: batches(store) > 0)
    assert batches(store) > 0
    database = sqlite3.connect(store)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in /proc")
def test_processes_of_a_study_stop_without_a_word(tmp_path: Path) -> None:
    """They are hit while they still import, too."""
    models = [str(tmp_path / name) for name in ("one", "other")]
    for model in models:
        write_timesfm(Path(model))
    process = started("study", *models, "--jobs", "2", "--no-explain", "--out", str(tmp_path / "out"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def all_there() -> bool:
        try:
            return len(children.read_text().split()) >= 3  # with the tracker of their semaphores
        except OSError:
            return False

    interrupted(process, all_there)


def test_a_reader_that_stops_reading() -> None:
    process = started("rank", "--list")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(SECONDS) == 1
    process.stderr.close()
