"""Moirai-2: causal decoder over patches, quantiles of the next ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from uni2ts.model.moirai2 import Moirai2Forecast, Moirai2Module

from tsprune.anatomy import Readout
from tsprune.models import moirai
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.forecaster import Forecast
from tsprune.models.objects import network
from tsprune.models.stated import levels, whole_number

_SIZES = {
    **moirai.MOIRAI_SIZES,
    **dict.fromkeys(("d_ff", "patch_size", "num_predict_token"), whole_number()),
    "quantile_levels": levels,
}
# the last position is that of the forecast patch, whose output is not used
READOUT = Readout(("out_proj",), "encoder.norm", position=-2)


class Moirai2(moirai.MoiraiForecaster):
    """`upstream` is a `Moirai2Forecast` for univariate series, set up anew at each forecast."""

    family = "moirai2"
    upstream: Moirai2Forecast
    module: Moirai2Module

    def __init__(self, module: Moirai2Module, config: Mapping[str, object], name: str, context: int) -> None:
        self.name = name
        self.module = module
        self.anatomy = moirai.moirai_anatomy(module, module.patch_size, READOUT, causal=True)
        self.context_length = context
        self.levels = tuple(module.quantile_levels)
        self.readout_horizon = module.patch_size * module.num_predict_token
        self._set_upstream(Moirai2Forecast)
        self.config = config

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        columns = [x[-self.context_length :, None] for x in series]
        # whole patches: upstream pads the first one with the first value, and only up to this length
        length = math.ceil(max(map(len, columns)) / self.module.patch_size) * self.module.patch_size
        with self.upstream.hparams_context(prediction_length=horizon, context_length=length):
            quantiles: NDArray[np.float32] = self.upstream.predict(columns)
        return Forecast(np.ascontiguousarray(quantiles), self.levels)

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """Normalised quantiles of the patches after the contexts, [B, tokens * Q * patch_size]."""
        recorded = self._outputs_of(self.module.out_proj, series)
        return recorded[0][:, -2]  # the last token of the context; after it comes the forecast one

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Moirai2:
        config = checkpoint.settings(_SIZES)
        module = Moirai2Module(**config).eval()
        context = checkpoint.context_length(moirai.MOIRAI_CONTEXT, module.patch_size)
        context = context // module.patch_size * module.patch_size
        return cls(module, config, checkpoint.name, context)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Moirai2:
        """The model of a `Moirai2Forecast` or its network in memory."""
        module = network(upstream, Moirai2Module, Moirai2Forecast, "module").eval()
        history = moirai.history_of(upstream, module.patch_size) // module.patch_size * module.patch_size
        return cls(module, moirai.config_of(module), name, history)
