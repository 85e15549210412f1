"""The package in examples/plugin, installed beside tsprune: its additions work from Python and the shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "plugin"
CLI = ("-m", "tsprune.cli")
IGNORED = ("-W", "ignore::DeprecationWarning", "-W", "ignore::ImportWarning")
DOCUMENT = ROOT / "docs" / "adding-a-model.md"
LATER = """
from tsprune.models import FAMILIES

assert list(FAMILIES)[-1] == "patchnet"
network = PatchNet(Settings(layers=2))
network.save_pretrained("two")
assert tsprune.load(PatchPipeline(network)).forecast([[1.0, 2.0] * 9], 3).median.shape == (1, 3)
"""


def blocks() -> list[str]:
    """The Python blocks of the document, in order."""
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of processes that see the installed example, as workers do that they start."""
    work = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, work / "source")
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(work / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *how, str(work / "source")], check=True)
    paths = [str(work / "site"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def said(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the document's blocks ran, one after the other, and what they printed."""
    folder = tmp_path_factory.mktemp("models")
    return folder, output(environment, folder, "-W", "error", *IGNORED, "-c", "\n".join([*blocks(), LATER]))


def output(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_of_the_document_runs(said: tuple[Path, str]) -> None:
    folder, printed = said
    assert "tiny: conforms" in printed
    assert printed.count("ok     law") == 8
    assert "WAPE" in printed
    assert (folder / "pruned" / "tsprune.json").exists()


def test_the_document_quotes_the_example() -> None:
    files = "".join(path.read_text() for path in EXAMPLE.glob("tsprune_example/*.py"))
    described, registered = blocks()[:2]
    assert described[described.index("def anatomy") : described.index("\n\n\nprint")] in files
    assert registered[registered.index("FAMILY") :] in files


COMMANDS = """
import sys
from tsprune import cli

for command in sys.argv[1:]:
    sys.argv = ["tsprune", *command.split()]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, command
    print("\\0")
"""
SWEEP = "sweep tiny --kind mlp --data sawtooth --json"


@pytest.fixture(scope="module")
def printed(environment: dict[str, str], said: tuple[Path, str]) -> list[str]:
    """What three commands print, one after the other in one process."""
    folder, _ = said
    commands = ("models --json", "rank tiny --by column_norm", SWEEP)
    return output(environment, folder, "-c", COMMANDS, *commands).split("\0\n")


def test_the_commands_see_them(printed: list[str]) -> None:
    assert json.loads(printed[0])["result"]["families"][-1]["family"] == "patchnet"
    assert "stack.1.self.head.2" in printed[1]


def test_workers_see_them(environment: dict[str, str], said: tuple[Path, str]) -> None:
    """Two processes, one a model; each finds family, metric and data by itself."""
    folder, _ = said
    how = ["--jobs", "2", "--data", "sawtooth", "--no-explain", "--json"]
    output(environment, folder, *CLI, "study", "tiny", "two", "--out", "study", *how)
    assert (folder / "study" / "results.parquet").exists()


def test_workers_of_a_cluster_see_them(
    environment: dict[str, str], said: tuple[Path, str], printed: list[str]
) -> None:
    pytest.importorskip("ray")
    folder, _ = said
    there = json.loads(output(environment, folder, *CLI, *SWEEP.split(), "--ray", "local"))
    assert json.loads(printed[2]) == there
    assert "wape_change" in there["result"]["components"][0]


def test_the_example_is_short() -> None:
    files = [EXAMPLE / "pyproject.toml", *(EXAMPLE / "tsprune_example").glob("*.py")]
    assert sum(len(path.read_text().splitlines()) for path in files) < 300
