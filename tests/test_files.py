"""Paths of users, targets that cannot be written to, and disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tsprune.atomic import whole_file, write_whole
from tsprune.errors import LINE, TspruneError, one_line
from tsprune.files import check_file, check_files, check_free, existing_file, output_folder, parse_json
from tsprune.folders import whole_directory


def _targets(root: Path) -> dict[str, Path | str]:
    """What no file can be written to."""
    (root / "folder").mkdir()
    (root / "file").write_text("precious")
    os.mkfifo(root / "pipe")
    (root / "dangling").symlink_to(root / "nothing")
    (root / "loop").symlink_to(root / "loop")
    return {
        "folder": root / "folder",
        "below a file": root / "file" / "x",
        "pipe": root / "pipe",
        "device": "/dev/full",
        "dangling link": root / "dangling",
        "loop": root / "loop",
        "long name": root / ("x" * 256),
        "long path": root / "/".join(["y" * 200] * 30),
        "no user": "~nosuchuser/x",
        "NUL": f"{root}/a\0b",
        "surrogate": f"{root}/\ud800",
        "empty": "",
        "root": "/",
        "dots": root / "folder" / "..",
    }


@pytest.mark.parametrize("check", [check_file, check_free, lambda path: write_whole(path, b"")])
def test_targets_that_cannot_be(tmp_path: Path, check: Callable[[str | Path], object]) -> None:
    for name, target in _targets(tmp_path).items():
        if check is check_free and name == "folder":
            continue  # an empty one is free
        with pytest.raises(TspruneError) as error:
            check(target)
        assert str(error.value).isprintable(), name
        assert len(str(error.value)) <= LINE
    assert (tmp_path / "file").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file", "pipe", "dangling", "loop"}


def test_folders_for_output(tmp_path: Path) -> None:
    for name, target in _targets(tmp_path).items():
        if name not in ("folder", "root", "dots"):
            with pytest.raises(TspruneError):
                output_folder(target)
    assert output_folder(tmp_path / "new" / "one").is_dir()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for target in _targets(tmp_path).values():
        with pytest.raises(TspruneError):
            existing_file(target, "plan")


def test_one_target_is_not_named_twice(tmp_path: Path) -> None:
    check_files(tmp_path / "a", None, tmp_path / "b")
    with pytest.raises(TspruneError, match="named twice"):
        check_files(tmp_path / "a", tmp_path / "a")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "other").read_text() == "precious"
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "link").is_symlink()


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "日" * 85):
        write_whole(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"


def test_two_writers_do_not_meet_and_the_dead_leave_nothing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with whole_file(target) as first:
        first.write(b"first")
        with whole_file(target) as second:  # removes nothing of the first, which is alive
            second.write(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    program = (
        "import os, sys; from tsprune.atomic import whole_file\n"
        "with whole_file(sys.argv[1]) as file: os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    write_whole(target, b"third")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FULL = """
import os, resource, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tsprune.atomic import write_whole
from tsprune.folders import whole_directory
from tsprune.errors import TspruneError
from tsprune.pruning.training_state import read_state, write_state

folder = Path(sys.argv[1])
write_state(folder / "state", {"a": 1}, {"w": torch.ones(10)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

def checkpoint():
    with whole_directory(folder / "checkpoint") as aside:
        save_file({"w": torch.ones(100_000)}, aside / "model.safetensors")

for work in (
    lambda: write_state(folder / "state", {"a": 1}, {"w": torch.ones(100_000)}),
    lambda: write_whole(folder / "table", bytes(400_000)),
    checkpoint,
):
    try:
        work()
        print("written")
    except TspruneError as error:
        assert "cannot write" in str(error) and "File too large" in str(error), error
assert read_state(folder / "state", {"a": 1})["w"].shape == (10,)
print(*sorted(os.listdir(folder)))
"""


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files, which ends a write in its middle as a full disk does."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("state\n", "")


def test_an_error_of_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TspruneError, match=r"cannot write .*No space left"), whole_directory(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_json_is_read_or_refused() -> None:
    assert parse_json('{"a": [1, "[[[["]}') == {"a": [1, "[[[["]}
    for text in ("[" * 100_000, '{"a":' * 5_000, "", "[1", "nonsense", "9" * 5_000, "[" * 200 + "]" * 200):
        with pytest.raises(ValueError, match=r"\w"):
            parse_json(text)


def test_messages_are_one_printable_line() -> None:
    for message in (
        "a\nb",
        "x" * 10_000,
        "y z " * 5_000,
        "\x1b[31mred",
        "\u202eback",
        "\ud800",
        "\0",
        "é日本",
    ):
        said = one_line(message)
        assert said.isprintable()
        assert len(said) <= LINE
        assert str(TspruneError(message)) == said
    assert one_line("no model " + "x" * 10_000 + "; name another").endswith("; name another")
