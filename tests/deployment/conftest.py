"""Tiny real models, exported once a session: torch takes seconds for each."""

from __future__ import annotations

import pytest

from tests.exporting import exported_to
from tsprune.deployment import Exported
from tsprune.models import Forecaster


@pytest.fixture(scope="session", params=["pruned chronos-bolt", "chronos2", "pruned timesfm"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Forecaster, Exported]:
    """A model and what it was exported to."""
    if request.param == "pruned chronos-bolt":
        found: tuple[Forecaster, Exported] = request.getfixturevalue("deployed")
        return found
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return exported_to(tmp_path_factory.mktemp("export"), request.param)
