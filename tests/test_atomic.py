"""What is written is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsprune.atomic import write_whole
from tsprune.errors import TspruneError
from tsprune.folders import whole_directory


def test_a_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    with whole_directory(target) as aside:
        (aside / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content"
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_a_directory_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_directory(tmp_path / "folder") as aside:
            (aside / "file").write_text("content")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for target, message in ((tmp_path, "is not empty"), (tmp_path / "file", "is a file")):
        with pytest.raises(TspruneError, match=message), whole_directory(target):
            raise AssertionError("never entered")
    with (
        pytest.raises(TspruneError, match="cannot make the folder"),
        whole_directory(tmp_path / "file" / "x"),
    ):
        raise AssertionError("never entered")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_relative_path_and_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with whole_directory(Path("empty")) as aside:
        write_whole(aside / "file", b"content")
    assert (tmp_path / "empty" / "file").read_bytes() == b"content"
