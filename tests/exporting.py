"""Tiny real models and their exports."""

from __future__ import annotations

import os

import pytest
from filelock import FileLock

from tests.tiny import TINY
from tsprune.choices import TORCH_EXPORT
from tsprune.deployment import Exported, load_exported
from tsprune.deployment.conversion import exports_in_formats
from tsprune.models import Forecaster, load
from tsprune.pruning import prune

# sublayers with unlike heads, one without any, and a missing MLP; of deep models also layers, since the time
# of an export grows with them
GONE = {
    "chronos-bolt": ["decoder.0.cross.head.0", "decoder.1.self", "decoder.2", "encoder.0.mlp"],
    "timesfm": ["stack.0.self.head.0", "stack.1.self", "stack.0.mlp", "stack.2"],
    "moirai2": ["stack.0.self.head.0", "stack.1.mlp"],
    "toto2": ["stack.0.time.head.0", "stack.0.mlp", "stack.1.variate.head.2", "stack.2", "stack.3.variate"],
    "timestral": ["stack.0.time.head.0", "stack.0.mlp", "stack.1.variate.head.2", "stack.1.time.head.1"],
    "timesfm3": ["stack.0.time.head.0", "stack.0.variate.head.1", "stack.0.mlp", "stack.1.time"],
    "t0": ["stack.0.time.head.0", "stack.0.mlp", "stack.1.group.head.2", "stack.2", "stack.3"],
    "moirai": ["stack.0.self.head.0", "stack.1.mlp"],
    "moirai-moe": ["stack.0.self.head.0", "stack.1.mlp"],
    "toto": ["stack.0.time.head.1", "stack.1.time", "stack.2.variate.head.0", "stack.0.mlp"],
    "chronos-t5": ["decoder.0.self.head.1", "decoder.1.self", "decoder.1.cross.head.0", "encoder.1.mlp"],
}
# of families whose graph is that of one pass; else a pruned model is exported for more than one
ONE_PASS = {"t0": 20, "toto2": 20, "timestral": 16}


def exported_once(
    factory: pytest.TempPathFactory, name: str, format: str = "onnx"
) -> tuple[Forecaster, Exported]:
    """A tiny model and its export, which takes torch up to half a minute: once for all processes of a run.

    name : of a family; "pruned FAMILY" is without parts
    format : "onnx" or "torch-export", which are traced once
    """
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root  # that of all processes
    folder, family = root / f"exported-{name.replace(' ', '-')}", name.removeprefix("pruned ")
    with FileLock(f"{folder}.lock"):
        if not (folder / "model").exists():
            TINY[f"tiny-{family}"](folder / "model")
        model = load(folder / "model", device="cpu", samples=6)
        horizon = model.readout_horizon
        if name.startswith("pruned"):
            model = prune(model, GONE[family])
            # those that draw paths: more than two patches
            horizon = ONE_PASS.get(family, horizon + (5 if horizon > 1 else 17))
        if not (folder / TORCH_EXPORT).exists():
            folders = {("fp32", one): folder / one for one in ("onnx", TORCH_EXPORT)}
            exports_in_formats(model, folders, horizon=horizon)
    return model, load_exported(folder / format)
