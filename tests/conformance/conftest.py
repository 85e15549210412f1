"""Every model that must obey the laws: the bundled checkpoints, and tiny random ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capabilities import CAPABILITIES, Capabilities, call_attention
from tests.threads import single_thread
from tests.tiny import TINY, few_samples, output_patch, pristine
from tests.upstream import TOLERANCE, UPSTREAM
from tsprune.models import Forecaster, bundled_names, load
from tsprune.models.checkpoints import BUNDLED
from tsprune.testing import Subject

BUNDLED_MODELS = [f"bundled:{name}" for name in bundled_names()]
# Each step of a Chronos-T5 is a pass of its network, and a forecast begins again after `prediction_length`
# steps. With the checkpoint's own settings, 64 steps and 512 tokens, it took a third of the suite's time.
T5_SETTINGS = {"prediction_length": 5, "context_length": 128}


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="session", params=[*TINY, *BUNDLED_MODELS])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory in the upstream format."""
    name: str = request.param
    bundled = BUNDLED / name.removeprefix("bundled:")
    if name == "bundled:chronos-t5":
        return _with_fewer_steps(bundled, tmp_path_factory.mktemp("chronos-t5") / "model")
    if name.startswith("bundled:"):
        return bundled
    path = tmp_path_factory.mktemp(name)
    TINY[name](path)
    return path


def _with_fewer_steps(source: Path, copy: Path) -> Path:
    """A copy of a Chronos-T5 with `T5_SETTINGS`; the weights are the same."""
    shutil.copytree(source, copy)
    config = json.loads((copy / "config.json").read_text())
    config["chronos_config"] |= T5_SETTINGS
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="session")
def loaded(directory: Path) -> Forecaster:
    return few_samples(load(str(directory), device="cpu"))


@pytest.fixture
def model(loaded: Forecaster) -> Iterator[Forecaster]:
    """A model under test, which every test must leave bit for bit as it found it."""
    with pristine(loaded):
        yield loaded


@pytest.fixture
def able(model: Forecaster) -> Capabilities:
    return CAPABILITIES[model.family]


@pytest.fixture
def subject(model: Forecaster, directory: Path) -> Subject:
    def upstream(contexts: list, horizon: int) -> object:  # type: ignore[type-arg]
        return UPSTREAM[model.family](directory)(contexts, horizon)

    tolerance = TOLERANCE.get(model.family, 0)
    return Subject(model, output_patch(model), upstream, call_attention, tolerance)  # type: ignore[arg-type]
