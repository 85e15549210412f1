"""PatchNet described for tsprune: where its components are, and how it forecasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Readout, Size, Stack, TimeAxis
from tsprune.models import Forecast, Forecaster
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.stated import whole_number
from tsprune_example.network import LEVELS, PatchNet, PatchPipeline, Settings

RULES = {field.name: whole_number() for field in dataclasses.fields(Settings)}


def anatomy(sizes: Settings) -> Anatomy:
    blocks = []
    for index in range(sizes.layers):
        path = f"blocks.{index}"
        attention, shape = f"{path}.attention", (sizes.heads, sizes.width // sizes.heads)
        sizes_of = (Size(attention, "heads", "heads"),)  # attributes that change when heads go
        norms = (f"{path}.norm1",)
        site = AttentionSite.of_layers("self", attention, "qkvo", *shape, others=norms, sizes=sizes_of)
        blocks.append(Block(path, (site,), MLPSite(f"{path}.mlp", (f"{path}.norm2",))))
    stack = Stack("stack", tuple(blocks), time=TimeAxis(sizes.patch), causal=True)
    return Anatomy((stack,), sizes.width, readout=Readout(("head",), "norm"))


class PatchNetForecaster(Forecaster):
    """`upstream` is the `PatchPipeline`."""

    family = "patchnet"
    upstream: PatchPipeline
    module: PatchNet

    def __init__(self, pipeline: PatchPipeline, name: str) -> None:
        sizes = pipeline.network.sizes
        self.name, self.upstream, self.module = name, pipeline, pipeline.network
        self.anatomy = anatomy(sizes)
        self.context_length = sizes.context
        self.readout_horizon = self.prefix_steps = sizes.horizon

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        return Forecast(self.upstream.predict(series, horizon).float().numpy(force=True), LEVELS)

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """Standardised quantiles of the first pass, [B, Q * horizon]."""
        values, known, *_ = self.upstream.standardised(series)
        output: Tensor = self.module(values, known)
        return output.flatten(1)

    def config_file(self) -> dict[str, Any]:
        return {"patchnet": dataclasses.asdict(self.module.sizes)}

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """PatchPipeline reads what is left if only whole layers were removed."""
        left = {"layers": len(self.module.blocks)}
        return {"patchnet": {**config["patchnet"], **left}} if self.anatomy.whole_layers else None

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> PatchNetForecaster:
        sizes = Settings(**checkpoint.settings(RULES, key="patchnet", required=True))
        return cls(PatchPipeline(PatchNet(sizes)), checkpoint.name)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> PatchNetForecaster:
        return cls(upstream, name)
