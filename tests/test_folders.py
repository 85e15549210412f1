"""Folders that killed processes leave behind, and several writers of one folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tsprune.errors import TspruneError
from tsprune.folders import PREFIX, whole_directory


@contextmanager
def writer(target: Path) -> Iterator[int]:
    """A process that is in the middle of writing `target`; killed in the end."""
    read, write = os.pipe()
    process = os.fork()
    if not process:
        with whole_directory(target) as aside:
            (aside / "file").write_text("half")
            os.write(write, b".")
            time.sleep(60)
        os._exit(0)
    try:
        os.close(write)
        assert os.read(read, 1) == b"."
        yield process
    finally:
        os.close(read)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(PREFIX)]


def write(target: Path) -> None:
    with whole_directory(target) as aside:
        (aside / "file").write_text("whole")


def test_the_dead_are_cleaned_up_after_and_the_living_are_not(tmp_path: Path) -> None:
    with writer(tmp_path / "one") as living:
        with writer(tmp_path / "two"):
            assert len(hidden(tmp_path)) == 2
        write(tmp_path / "three")
        (left,) = hidden(tmp_path)
        assert f"-{living}-" in left.name
        assert (left / "file").read_text() == "half"
    assert len(hidden(tmp_path)) == 1
    write(tmp_path / "four")
    assert hidden(tmp_path) == []


def test_folders_of_other_hosts_and_other_things_stay(tmp_path: Path) -> None:
    kept = [f"{PREFIX}elsewhere-99999999-0a1b2c3d", ".tsprune-notes", ".hidden"]
    for name in kept:
        (tmp_path / name).mkdir()
    write(tmp_path / "target")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "target"}


def test_the_slower_of_two_writers_gets_one_line(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def slow() -> None:
        with whole_directory(target) as aside:
            (aside / "file").write_text("slow")
            write(target)

    with pytest.raises(TspruneError, match="target is not empty"):
        slow()
    assert (target / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_permissions_are_those_of_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_directory(tmp_path / "target") as aside:
            os.close(os.open(aside / "private", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert (tmp_path / "target" / "private").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o750


def test_a_link_to_nothing_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(TspruneError, match="link"):
        write(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
