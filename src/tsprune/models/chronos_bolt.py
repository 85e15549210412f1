"""Chronos-Bolt: T5 encoder over patches, a one-token decoder, quantiles of one output patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting, ChronosBoltPipeline
from numpy.typing import NDArray
from torch import Tensor

from tsprune.models import t5
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.forecaster import Forecast, padded
from tsprune.models.pretrained import adopted, check_tokens, quiet_horizon, quietly
from tsprune.models.stated import flag, levels, whole_number
from tsprune.models.t5 import T5Forecaster, t5_config

# of chronos_config in config.json
_SETTINGS = {
    "context_length": whole_number(),
    "prediction_length": whole_number(),
    "input_patch_size": whole_number(),
    "input_patch_stride": whole_number(),
    "quantiles": levels,
    "use_reg_token": flag,
}


class ChronosBolt(T5Forecaster):
    """`upstream` is the `ChronosBoltPipeline`."""

    family = "chronos-bolt"
    upstream: ChronosBoltPipeline
    module: ChronosBoltModelForForecasting

    def __init__(self, model: ChronosBoltModelForForecasting, name: str) -> None:
        self.name = name
        self.module = model.eval()
        self.upstream = ChronosBoltPipeline(model)
        settings = model.chronos_config
        self.anatomy = t5.t5_anatomy(
            model.config,
            "output_patch_embedding",
            span=settings.input_patch_size,
            marks=int(settings.use_reg_token),
        )
        self.context_length = model.chronos_config.context_length
        self.levels = tuple(model.chronos_config.quantiles)
        self.readout_horizon = self.prefix_steps = model.chronos_config.prediction_length

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        with quiet_horizon():
            quantiles = self.upstream.predict(torch.from_numpy(padded(series)), prediction_length=horizon)
        return Forecast(quantiles.numpy(), self.levels)

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """Normalised quantiles of the first output patch, [B, Q * prediction_length]."""
        contexts = torch.from_numpy(padded(series)).to(self.device)
        encoded, _, embedded, mask = self.module.encode(contexts)
        decoded = self.module.decode(embedded, mask, encoded)
        output: Tensor = self.module.output_patch_embedding(decoded)
        return output.flatten(1)

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> ChronosBolt:
        config = t5_config(checkpoint, _SETTINGS)
        model = quietly(lambda: ChronosBoltModelForForecasting(config))
        check_tokens(model, start=True)
        return cls(model, checkpoint.name)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> ChronosBolt:
        """The model of a `ChronosBoltPipeline` or its network in memory."""
        return adopted(cls, upstream, name, ChronosBoltPipeline, ChronosBoltModelForForecasting)
