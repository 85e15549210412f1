"""Every model that must obey the laws: the bundled checkpoints, and tiny random ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.capabilities import CAPABILITIES, Capabilities, call_attention
from tests.threads import single_thread
from tests.tiny import SHORT, TINY, few_samples, output_patch, pristine
from tests.upstream import TOLERANCE, UPSTREAM
from tsprune.models import FAMILIES, Forecaster, bundled_names, load
from tsprune.models.checkpoints import BUNDLED
from tsprune.testing import Subject

# one of each family: other sizes of it are the same code, and take as long
BUNDLED_MODELS = [f"bundled:{name}" for name in bundled_names() if name in FAMILIES]
# Laws hold for any length. Each step of a Chronos-T5 is a pass of its network, and a forecast begins again
# after `prediction_length` steps. With the checkpoints' own settings, most of the suite's time went here.
SHORTER = {
    "chronos-bolt": {"context_length": 128},
    "chronos-t5": {"context_length": 64, "prediction_length": 5},
    "chronos2": {"context_length": 128},
    "timesfm": {"max_context": 256},
    "toto": {"max_context": "512"},
    "moirai": {"max_context": "256"},
    "moirai2": {"max_context": "256"},
    "toto2": {"max_context": "256"},
}


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="session", params=[*TINY, *BUNDLED_MODELS])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory in the upstream format."""
    name: str = request.param
    if name.startswith("bundled:"):
        family = name.removeprefix("bundled:")
        return _shorter(BUNDLED / family, tmp_path_factory.mktemp(family) / "model", SHORTER[family])
    path = tmp_path_factory.mktemp(name)
    TINY[name](path, **SHORT.get(name, {}))
    return path


def _shorter(source: Path, copy: Path, settings: dict[str, object]) -> Path:
    """A copy of a checkpoint with other settings, wherever it states them; the weights are the same."""
    shutil.copytree(source, copy)
    config, weights = json.loads((copy / "config.json").read_text()), copy / "model.safetensors"
    with safe_open(weights, "pt") as header:
        metadata = header.metadata()
    stated = [
        place for place in (config, config.get("chronos_config", {}), metadata) if settings.keys() <= {*place}
    ]
    assert len(stated) == 1
    stated[0].update(settings)
    (copy / "config.json").write_text(json.dumps(config))
    save_file(load_file(source / "model.safetensors"), weights, metadata=metadata)
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
