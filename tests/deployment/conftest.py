"""Tiny real models of every family that is exported."""

from __future__ import annotations

import pytest

from tests.exporting import exported_once
from tsprune.deployment import Exported
from tsprune.models import Forecaster


@pytest.fixture(
    scope="session", params=["pruned chronos-bolt", "chronos2", "pruned timesfm", "pruned moirai2"]
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Forecaster, Exported]:
    """A model and its export."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return exported_once(tmp_path_factory, request.param)
