"""Upstream models, one short file per family, and `load`, which finds the right one."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from importlib.util import find_spec

import torch

from tsprune.errors import TspruneError
from tsprune.models.checkpoints import Checkpoint, bundled_names, find
from tsprune.models.forecaster import Forecast, Forecaster, SamplingForecaster

__all__ = [
    "FAMILIES",
    "Family",
    "Forecast",
    "Forecaster",
    "SamplingForecaster",
    "bundled_names",
    "family_of",
    "load",
]


@dataclasses.dataclass(frozen=True)
class Family:
    """Where a family's adapter is, and what it takes to run it.

    package : the upstream package's import name
    extra : the extra of tsprune that installs it
    weights, config_key : a checkpoint with tensors of these names and this key in config.json
        (None: any) is of this family; it can be told without importing the upstream package
    """

    name: str
    module: str
    package: str
    extra: str
    weights: tuple[str, ...]
    config_key: str | None = None

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None

    def matches(self, checkpoint: Checkpoint) -> bool:
        has_key = self.config_key is None or self.config_key in checkpoint.config
        return has_key and all(name in checkpoint.shapes for name in self.weights)


FAMILIES: tuple[Family, ...] = (
    Family(
        "chronos-bolt",
        "tsprune.models.chronos_bolt",
        package="chronos",
        extra="chronos",
        weights=(
            "input_patch_embedding.hidden_layer.weight",
            "decoder.block.0.layer.0.SelfAttention.q.weight",
        ),
        config_key="chronos_config",
    ),
    Family(
        "chronos2",
        "tsprune.models.chronos2",
        package="chronos",
        extra="chronos",
        weights=(
            "input_patch_embedding.hidden_layer.weight",
            "encoder.block.0.layer.1.self_attention.q.weight",
        ),
        config_key="chronos_config",
    ),
    Family(  # after Chronos-Bolt, which has these weights and more
        "chronos-t5",
        "tsprune.models.chronos",
        package="chronos",
        extra="chronos",
        weights=("shared.weight", "decoder.block.0.layer.1.EncDecAttention.q.weight"),
        config_key="chronos_config",
    ),
    Family(
        "timesfm",
        "tsprune.models.timesfm",
        package="timesfm",
        extra="timesfm",
        weights=("stacked_xf.0.attn.qkv_proj.weight",),
    ),
    Family(
        "toto",
        "tsprune.models.toto",
        package="toto",
        extra="toto",
        weights=("model.transformer.layers.0.attention.wQKV.weight",),
        config_key="scaler_cls",
    ),
    Family(
        "moirai",
        "tsprune.models.moirai",
        package="uni2ts",
        extra="moirai",
        weights=("mask_encoding.weight", "encoder.layers.0.ffn.fc_gate.weight"),
        config_key="distr_output",
    ),
    Family(
        "moirai2",
        "tsprune.models.moirai2",
        package="uni2ts",
        extra="moirai",
        weights=("out_proj.hidden_layer.weight", "encoder.layers.0.ffn.fc_gate.weight"),
        config_key="num_predict_token",
    ),
)


def family_of(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint; TspruneError if none fits or its package is not installed."""
    for family in FAMILIES:
        if family.matches(checkpoint):
            if not family.installed:
                raise TspruneError(
                    f"{checkpoint.name} is a {family.name} model; "
                    f'install its package with: pip install "tsprune[{family.extra}]"'
                )
            return family
    known = ", ".join(family.name for family in FAMILIES)
    stated = checkpoint.config.get("architectures") or checkpoint.config.get("model_type")
    detail = f" (config.json says {stated})" if stated else ""
    missing = "" if checkpoint.config else "; it has no config.json"
    raise TspruneError(f"{checkpoint.name}: unknown architecture{detail}{missing}; known are: {known}")


def load(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    samples: int | None = None,
    seed: int = 0,
) -> Forecaster:
    """Loads a model: `bundled:NAME`, a directory in the upstream format, or a hub id.

    device : where to put it; None takes CUDA if there is one, else the CPU
    samples : paths per window, for models that sample; None takes what upstream uses
    seed : of the draws, for models that sample

    Raises TspruneError with one line that says what to do.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> model.forecast([[1.0, 2.0, 3.0] * 20], horizon=3).median.shape
    (1, 3)
    """
    checkpoint = find(name)
    adapter = import_module(family_of(checkpoint).module)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    opened: Forecaster = adapter.open_checkpoint(checkpoint, torch.device(device), dtype)
    if isinstance(opened, SamplingForecaster):
        opened.samples, opened.seed = samples or opened.samples, seed
    return opened
