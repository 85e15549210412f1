"""Tiny real models, exported once a session: torch takes seconds for each."""

from __future__ import annotations

from pathlib import Path

import pytest

import tsprune
from tests.tiny import TINY
from tsprune.deployment import Exported
from tsprune.models import Forecaster, load
from tsprune.pruning import prune

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# sublayers with unlike heads, one without any, and a missing MLP
GONE = {
    "chronos-bolt": ["decoder.0.cross.head.0", "decoder.1.self", "encoder.0.mlp"],
    "timesfm": ["stack.0.self.head.0", "stack.1.self", "stack.0.mlp"],
}


@pytest.fixture(scope="session", params=["pruned chronos-bolt", "chronos2", "pruned timesfm"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Forecaster, Exported]:
    """A model and what it was exported to."""
    family = request.param.removeprefix("pruned ")
    folder: Path = tmp_path_factory.mktemp("export")
    TINY[f"tiny-{family}"](folder / "model")
    model = load(folder / "model", device="cpu")
    horizon = model.readout_horizon
    if request.param.startswith("pruned"):
        model = prune(model, GONE[family])
        horizon += 5  # beyond a pass
    return model, tsprune.export(model, folder / "exported", horizon=horizon)
