"""Chronos-Bolt: T5 encoder over patches, a one-token decoder, quantiles of one output patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting, ChronosBoltPipeline
from numpy.typing import NDArray
from torch import Tensor

from tsprune.models.checkpoints import Checkpoint
from tsprune.models.contexts import padded
from tsprune.models.forecaster import Forecast
from tsprune.models.pretrained import PATCHED, adopted, check_tokens, quiet_horizon, quietly
from tsprune.models.stated import whole_number
from tsprune.models.t5 import T5Forecaster, t5_anatomy, t5_config

# of chronos_config in config.json
_SETTINGS = {**PATCHED, "prediction_length": whole_number()}


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
        patch, marks = settings.input_patch_size, int(settings.use_reg_token)
        self.anatomy = t5_anatomy(model.config, "output_patch_embedding", span=patch, marks=marks)
        self.context_length = settings.context_length
        self.levels = tuple(settings.quantiles)
        self.readout_horizon = self.prefix_steps = settings.prediction_length

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
