"""Tiny real models of every family that is exported."""

from __future__ import annotations

import pytest

from tests.exporting import exported_once
from tsprune.deployment import Exported
from tsprune.models import Forecaster

ONE_PASS = [
    "pruned chronos-bolt", "chronos2", "pruned timesfm", "pruned moirai2", "pruned t0", "pruned timestral",
    "pruned timesfm3", "pruned toto2",
]  # fmt: skip
SAMPLERS = ["pruned chronos-t5", "pruned toto", "pruned moirai", "pruned moirai-moe"]
Pair = tuple[Forecaster, Exported]


def _exported(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Pair:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return exported_once(factory, request.param)


@pytest.fixture(scope="session", params=[*ONE_PASS, *SAMPLERS])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model and its export."""
    return _exported(request, tmp_path_factory)


@pytest.fixture(scope="session", params=ONE_PASS)
def one_pass(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model that does not draw paths, and its export."""
    return _exported(request, tmp_path_factory)


@pytest.fixture(scope="session", params=SAMPLERS)
def sampler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model that draws paths, and its export."""
    return _exported(request, tmp_path_factory)
