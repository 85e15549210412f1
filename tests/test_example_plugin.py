"""The package in examples/plugin, installed beside tsprune: its additions work from Python and the shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "plugin"
PYTHON = """
import sys
from pathlib import Path
import torch
import tsprune
from tsprune.models import FAMILIES
from tsprune.testing import check_conformance
from tsprune_example.network import PatchNet, PatchPipeline, Settings

folder = Path(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(0)
for name, layers in (("one", 3), ("two", 2)):
    network = PatchNet(Settings(layers=layers))
    for parameter in network.parameters():  # nothing at a trivial value: norms start at one
        parameter.data += 0.2 * torch.randn(parameter.shape)
    network.save_pretrained(folder / name)
assert list(FAMILIES)[-1] == "patchnet"
assert "tsprune_example.family" not in sys.modules  # imported when a model is loaded
model = tsprune.load(folder / "one", device="cpu")
pipeline = PatchPipeline.from_pretrained(folder / "one")
report = check_conformance(model, upstream=lambda *given: pipeline.predict(*given).numpy())
print(report)
report.require()
assert tsprune.load(pipeline).forecast([[1.0, 2.0] * 9], 3).median.shape == (1, 3)
suite = tsprune.data.open_suite("sawtooth")
assert tsprune.rank(model, by="column_norm")["score"].min() > 0
assert tsprune.evaluate(model, suite)["WAPE"].between(0, 10).all()
pruned = tsprune.prune(model, ["stack.0.mlp", "stack.1.self.head.2"])
pruned.save(folder / "pruned")
assert tsprune.load(folder / "pruned").anatomy.removed == pruned.anatomy.removed
"""


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
def models(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models of the example's family and a pruned one, made and tried from Python."""
    folder = tmp_path_factory.mktemp("models")
    done = output(environment, "-c", PYTHON, str(folder))
    assert "conforms" in done
    assert done.count("ok     law") == 8
    return folder


def output(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_four_from_python(models: Path) -> None:
    assert (models / "pruned" / "tsprune.json").exists()


def test_the_commands_see_them(environment: dict[str, str], models: Path) -> None:
    families = json.loads(output(environment, "-m", "tsprune.cli", "models", "--json"))["families"]
    assert families[-1]["family"] == "patchnet"
    ranked = output(environment, "-m", "tsprune.cli", "rank", str(models / "pruned"), "--by", "column_norm")
    assert "stack.1.self.head.1" in ranked
    assert "stack.1.self.head.2" not in ranked


def test_workers_see_them(environment: dict[str, str], models: Path) -> None:
    """Two processes, one a model; each finds family, metric and data by itself."""
    names = [str(models / "one"), str(models / "two"), "--out", str(models / "study")]
    how = ["--jobs", "2", "--data", "sawtooth", "--no-explain", "--json"]
    output(environment, "-m", "tsprune.cli", "study", *names, *how)
    assert (models / "study" / "results.parquet").exists()


def test_the_example_is_short() -> None:
    files = [EXAMPLE / "pyproject.toml", *(EXAMPLE / "tsprune_example").glob("*.py")]
    assert sum(len(path.read_text().splitlines()) for path in files) < 300
