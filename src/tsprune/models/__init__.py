"""Upstream models, one short file per family, and `load`, which finds the right one."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from tsprune.errors import TspruneError
from tsprune.models.checkpoints import Checkpoint, bundled_names, find
from tsprune.models.forecaster import Forecast, Forecaster, SamplingForecaster
from tsprune.models.pruned import open_pruned, read_record

__all__ = [
    "FAMILIES",
    "Family",
    "Forecast",
    "Forecaster",
    "SamplingForecaster",
    "bundled_names",
    "family_of",
    "load",
    "load_pipeline",
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
            return _installed(checkpoint.name, family)
    known = ", ".join(family.name for family in FAMILIES)
    stated = checkpoint.config.get("architectures") or checkpoint.config.get("model_type")
    detail = f" (config.json says {stated})" if stated else ""
    missing = "" if checkpoint.config else "; it has no config.json"
    raise TspruneError(f"{checkpoint.name}: unknown architecture{detail}{missing}; known are: {known}")


def _family(checkpoint: str, name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return _installed(checkpoint, family)
    known = ", ".join(family.name for family in FAMILIES)
    raise TspruneError(f"{checkpoint}: tsprune.json names the unknown family {name!r}; known are: {known}")


def _installed(checkpoint: str, family: Family) -> Family:
    if not family.installed:
        raise TspruneError(
            f"{checkpoint} is a {family.name} model; "
            f'install its package with: pip install "tsprune[{family.extra}]"'
        )
    return family


def load(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    samples: int | None = None,
    seed: int = 0,
) -> Forecaster:
    """Loads a model, pruned or not: `bundled:NAME`, a directory in the upstream format, or a hub id.

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
    record = read_record(checkpoint.directory)
    family = family_of(checkpoint) if record is None else _family(checkpoint.name, record.family)
    adapter = import_module(family.module)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    opened: Forecaster
    if record is None:
        opened = adapter.open_checkpoint(checkpoint, target, dtype)
    else:
        opened = open_pruned(adapter, checkpoint, record, target, dtype)
    if isinstance(opened, SamplingForecaster):
        opened.samples, opened.seed = samples or opened.samples, seed
    return opened


def load_pipeline(
    name: str, *, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Any:
    """The upstream package's own object for a model, pruned or not, for code that already uses it.

    Chronos-T5: `ChronosPipeline`, Chronos-Bolt: `ChronosBoltPipeline`, Chronos-2: `Chronos2Pipeline`,
    TimesFM: `TimesFM_2p5_200M_torch` (call its `compile` first, as always), Toto: `Toto`, Moirai:
    `MoiraiForecast` and Moirai-2: `Moirai2Forecast` for univariate series (set their horizon and context
    length with `hparams_context`; the network is `.module`).

    name, device, dtype : as in `load`
    """
    return load(name, device=device, dtype=dtype).upstream
