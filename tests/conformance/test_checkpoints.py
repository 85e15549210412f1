"""Law 7: what is saved loads again, in a fresh process, from a directory or the hub's cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import TINY, few_samples, ragged
from tests.upstream import TOLERANCE, UPSTREAM
from tsprune.models import Forecaster, load

HUB = {
    "amazon/chronos-bolt-small": "tiny-chronos-bolt-cached",
    "google/timesfm-2.5-200m-pytorch": "tiny-timesfm",
}


def test_save_and_load_is_the_identity(model: Forecaster, tmp_path: Path) -> None:
    contexts = ragged(model, 3)
    model.save(tmp_path / "new" / "copy")
    copy = few_samples(load(str(tmp_path / "new" / "copy"), device="cpu"))

    assert copy.family == model.family
    assert copy.anatomy == model.anatomy
    assert copy.context_length == model.context_length
    assert copy.parameter_count == model.parameter_count
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(copy.module.state_dict()[name], tensor)
    expected = model.forecast(contexts, 9).quantiles
    np.testing.assert_array_equal(copy.forecast(contexts, 9).quantiles, expected)
    native = UPSTREAM[model.family](tmp_path / "new" / "copy")
    tolerance = TOLERANCE.get(model.family, 0) * np.abs(expected).max()
    np.testing.assert_allclose(native(contexts, 9), expected, rtol=0, atol=tolerance)


IGNORED = ["-W", "ignore::DeprecationWarning", "-W", "ignore::ImportWarning"]
FRESH = """
import json, sys
import numpy as np
import torch
from tsprune.errors import TspruneError
from tsprune.models import load

torch.set_num_threads(1)
work = json.load(sys.stdin)
for target, (name, series) in work["load"].items():
    model = load(name, device="cpu")
    contexts = [np.array(x, dtype=np.float32) for x in series]
    np.save(target, model.forecast(contexts, 9).quantiles)
for name in work["fail"]:
    try:
        load(name)
    except TspruneError as error:
        print(error)
"""


def hub_cache(home: Path, repository: str, source: Path, files: list[str]) -> None:
    """`source` as the hub's client would have cached it."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    root = home / "hub" / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    (root / "blobs").mkdir()
    snapshot = root / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for number, file in enumerate(files):
        shutil.copy(source / file, root / "blobs" / str(number))
        (snapshot / file).symlink_to(Path("../../blobs") / str(number))


@pytest.fixture(scope="module")
def fresh(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """(forecasts here, the same in a fresh process, its error messages), by hub id or model."""
    work = tmp_path_factory.mktemp("fresh")
    home = work / "home"
    here: dict[str, np.ndarray] = {}
    tasks: dict[str, tuple[str, list[list[float]]]] = {}
    for repository, name in HUB.items():
        TINY[name](work / name)
        model = load(str(work / name), device="cpu")
        series = ragged(model, 2)
        expected = model.forecast(series, 9).quantiles
        listed = [x.astype(float).tolist() for x in series]
        # TimesFM's repository says nothing about the model in config.json, or has none
        files = ["model.safetensors"] + (["config.json"] if model.family == "chronos-bolt" else [])
        hub_cache(home, repository, work / name, files)
        for key, what in ((name, str(work / name)), (repository, repository)):
            here[key] = expected
            tasks[str(work / key.replace("/", "--")) + ".npy"] = (what, listed)
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        environment.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-W", "error", *IGNORED, "-c", FRESH],
        input=json.dumps(
            {"load": tasks, "fail": ["amazon/chronos-bolt-tiny", "no/such/model", "owner/bad name!"]}
        ),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    there = {key: np.load(str(work / key.replace("/", "--")) + ".npy") for key in here}
    return here, there, done.stdout.splitlines()


@pytest.mark.parametrize("key", [*HUB, *HUB.values()])
def test_a_fresh_process_forecasts_the_same(key: str, fresh: tuple) -> None:  # type: ignore[type-arg]
    here, there, _ = fresh
    np.testing.assert_array_equal(there[key], here[key])


def test_hub_ids_that_cannot_be_had_are_one_line_errors(fresh: tuple) -> None:  # type: ignore[type-arg]
    _, _, messages = fresh
    absent, nested, invalid = messages
    assert "amazon/chronos-bolt-tiny" in absent
    assert "not in the local cache" in absent
    assert "no/such/model" in nested
    assert "not a valid hub id" in invalid
