"""Chronos-Bolt: T5 encoder over patches, a one-token decoder, quantiles of one output patch."""

from __future__ import annotations

import numpy as np
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting, ChronosBoltPipeline
from numpy.typing import NDArray
from torch import Tensor
from transformers import T5Config

from tsprune.models import t5
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.forecaster import Forecast, padded
from tsprune.models.pretrained import load_pretrained, quiet_horizon
from tsprune.models.t5 import T5Forecaster


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
        self.anatomy = t5.anatomy(
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


def open_checkpoint(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> ChronosBolt:
    """Loads through the upstream class; TspruneError if weights and config disagree."""
    model = load_pretrained(ChronosBoltModelForForecasting, checkpoint, dtype, "Chronos-Bolt")
    return ChronosBolt(model.to(device), checkpoint.name)


def blank(checkpoint: Checkpoint) -> ChronosBolt:
    """The model that config.json describes, with weights as upstream initialises them."""
    return ChronosBolt(
        ChronosBoltModelForForecasting(T5Config.from_dict(dict(checkpoint.config))), checkpoint.name
    )
