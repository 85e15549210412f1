"""Every model that must obey the laws: the bundled checkpoints, and tiny random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.threads import single_thread
from tests.tiny import TINY, few_samples, pristine
from tsprune.models import Forecaster, bundled_names, load
from tsprune.models.checkpoints import BUNDLED

BUNDLED_MODELS = [f"bundled:{name}" for name in bundled_names()]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="session", params=[*TINY, *BUNDLED_MODELS])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory in the upstream format."""
    name: str = request.param
    if name.startswith("bundled:"):
        return BUNDLED / name.removeprefix("bundled:")
    path = tmp_path_factory.mktemp(name)
    TINY[name](path)
    return path


@pytest.fixture(scope="session")
def loaded(directory: Path) -> Forecaster:
    return few_samples(load(str(directory), device="cpu"))


@pytest.fixture
def model(loaded: Forecaster) -> Iterator[Forecaster]:
    """A model under test, which every test must leave bit for bit as it found it."""
    with pristine(loaded):
        yield loaded
