"""Checkpoints in the hub's cache on this machine: revisions and subfolders, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import write_timesfm
from tsprune.models import load

FIRST, SECOND = "1" * 40, "2" * 40
QUESTIONS = (
    ("org/name", {}),
    ("org/name@main", {}),
    ("org/name@v1", {}),
    ("org/name", {"revision": "v1"}),
    (f"org/name@{FIRST}", {}),
    ("org/name", {"revision": SECOND}),
    ("org/name:sub/folder", {}),
    ("org/name", {"subfolder": "sub/folder"}),
    ("org/name@v1", {"subfolder": "sub/folder"}),
    ("org/name@v9", {}),
    ("org/name", {"revision": "3" * 40}),
    ("org/name", {"subfolder": "elsewhere"}),
    ("org/other", {}),
)
SCRIPT = f"""
import json
import tsprune
for name, place in {QUESTIONS!r}:
    try:
        model = tsprune.load(name, device="cpu", **place)
        print(json.dumps([model.name, model.family, model.parameter_count]))
    except tsprune.TspruneError as error:
        print(json.dumps(str(error)))
"""


def write_cache(root: Path) -> None:
    """A repository with the layout that the hub's client writes: a TimesFM, of which v1 had fewer layers."""
    repository = root / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SECOND)
    (repository / "refs" / "v1").write_text(FIRST)
    write_timesfm(repository / "snapshots" / FIRST, layers=2)
    write_timesfm(repository / "snapshots" / SECOND)
    write_timesfm(repository / "snapshots" / SECOND / "sub" / "folder", layers=2)


@pytest.fixture(scope="module", params=["HF_HUB_CACHE", "HF_HOME"])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What a fresh process finds, as the client reads where its cache is when it is imported."""
    root = tmp_path_factory.mktemp("hub")
    write_cache(root if request.param == "HF_HUB_CACHE" else root / "hub")
    elsewhere = {"HF_HUB_CACHE", "HF_HOME", "HUGGINGFACE_HUB_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    environment |= {request.param: str(root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_revisions_and_subfolders_are_what_is_read(answers: list[object], tmp_path: Path) -> None:
    write_timesfm(tmp_path / "old", layers=2)
    write_timesfm(tmp_path / "new")
    old, new = (["timesfm", load(tmp_path / name, device="cpu").parameter_count] for name in ("old", "new"))
    assert old != new
    assert answers[:8] == [
        ["org/name", *new],
        ["org/name@main", *new],
        ["org/name@v1", *old],
        ["org/name@v1", *old],
        [f"org/name@{FIRST}", *old],
        [f"org/name@{SECOND}", *new],
        ["org/name:sub/folder", *old],
        ["org/name:sub/folder", *old],
    ]


def test_others_are_one_line(answers: list[object]) -> None:
    """A subfolder that only another revision has, an unknown revision, folder and repository."""
    lines = answers[8:]
    for line, part in zip(lines, ["sub/folder", "v9", "3" * 40, "elsewhere", "org/other"], strict=True):
        assert isinstance(line, str)
        assert part in line
        assert line.isprintable()
