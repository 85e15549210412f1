"""Tiny real models and their exports."""

from __future__ import annotations

from pathlib import Path

import tsprune
from tests.tiny import TINY
from tsprune.deployment import Exported
from tsprune.models import Forecaster, load
from tsprune.pruning import prune

# sublayers with unlike heads, one without any, and a missing MLP
GONE = {
    "chronos-bolt": ["decoder.0.cross.head.0", "decoder.1.self", "encoder.0.mlp"],
    "timesfm": ["stack.0.self.head.0", "stack.1.self", "stack.0.mlp"],
}


def exported_to(folder: Path, name: str) -> tuple[Forecaster, Exported]:
    """A tiny model, and its export in `folder`.

    name : of a family; "pruned FAMILY" is without parts, and exported for more than one pass
    """
    family = name.removeprefix("pruned ")
    TINY[f"tiny-{family}"](folder / "model")
    model = load(folder / "model", device="cpu")
    horizon = model.readout_horizon
    if name.startswith("pruned"):
        model = prune(model, GONE[family])
        horizon += 5
    return model, tsprune.export(model, folder / "exported", horizon=horizon)
