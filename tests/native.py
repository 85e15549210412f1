"""Upstream's loaders and forecasts, without tsprune: for processes that must not import it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HORIZON = 11
CONTEXTS = [
    (10 * np.sin(np.arange(n) / 4) + np.random.default_rng(n).standard_normal(n)).astype(np.float32)
    for n in (48, 31)
]


def open_native(family: str, directory: Path) -> Any:
    """What users of the upstream package load a checkpoint with."""
    if family == "chronos-t5":
        from chronos import ChronosPipeline

        return ChronosPipeline.from_pretrained(directory)
    if family == "chronos-bolt":
        from chronos import ChronosBoltPipeline

        return ChronosBoltPipeline.from_pretrained(directory)
    if family == "chronos2":
        from chronos import Chronos2Pipeline

        return Chronos2Pipeline.from_pretrained(directory)
    if family == "timesfm":
        from timesfm import TimesFM_2p5_200M_torch

        return TimesFM_2p5_200M_torch.from_pretrained(str(directory), torch_compile=False)
    if family == "toto":
        from toto.model.toto import Toto

        return Toto.load_from_checkpoint(str(directory))
    if family == "t0":
        from t0.torch import T0Forecaster

        return T0Forecaster.from_pretrained(directory)
    if family == "timesfm3":
        from timesfm3 import TimesFM3Forecaster

        return TimesFM3Forecaster.from_pretrained(str(directory), device="cpu")
    if family == "timestral":
        from timestral import TimestralForecaster

        return TimestralForecaster.from_pretrained(directory)
    if family == "toto2":
        from toto2 import Toto2Model

        return Toto2Model.from_pretrained(directory)
    if family == "moirai":
        from uni2ts.model.moirai import MoiraiForecast, MoiraiModule

        module = MoiraiModule.from_pretrained(directory, strict=True)
        return MoiraiForecast(1, 1, 0, 0, 48, module=module, patch_size=8, num_samples=4)
    if family == "moirai-moe":
        from uni2ts.model.moirai_moe import MoiraiMoEForecast, MoiraiMoEModule

        experts = MoiraiMoEModule.from_pretrained(directory, strict=True)
        return MoiraiMoEForecast(1, 1, 0, 0, 48, module=experts, patch_size=8, num_samples=4)
    from uni2ts.model.moirai2 import Moirai2Forecast, Moirai2Module

    return Moirai2Forecast(1, 1, 0, 0, 48, module=Moirai2Module.from_pretrained(directory, strict=True))


def _chronos(pipeline: Any) -> NDArray[Any]:
    series = [torch.tensor(x) for x in CONTEXTS]
    return np.stack([np.asarray(x) for x in pipeline.predict(series, HORIZON)])


def _timesfm(pipeline: Any) -> NDArray[Any]:
    from timesfm import ForecastConfig

    pipeline.compile(ForecastConfig(max_context=64, max_horizon=256, per_core_batch_size=2))
    _, quantiles = pipeline.forecast(140, [x.copy() for x in CONTEXTS])
    return np.asarray(quantiles)


def _toto(pipeline: Any) -> NDArray[Any]:
    from toto.data.util.dataset import MaskedTimeseries
    from toto.inference.forecaster import TotoForecaster

    values = torch.tensor(CONTEXTS[0])[None]
    zeros = torch.zeros(values.shape, dtype=torch.int)
    series = MaskedTimeseries(values, torch.ones_like(values, dtype=torch.bool), zeros, zeros, zeros[:, 0])
    forecast = TotoForecaster(pipeline.model).forecast(series, HORIZON, num_samples=4, samples_per_batch=4)
    return np.asarray(forecast.samples)


def _moirai(pipeline: Any) -> NDArray[Any]:
    values = torch.tensor(CONTEXTS[0])[None, :, None]
    with (
        pipeline.hparams_context(prediction_length=HORIZON, context_length=48, num_samples=4),
        torch.no_grad(),
    ):
        paths = pipeline(
            values, torch.ones_like(values, dtype=torch.bool), torch.zeros(1, 48, dtype=torch.bool)
        )
    return np.asarray(paths)


def _moirai2(pipeline: Any) -> NDArray[Any]:
    with pipeline.hparams_context(prediction_length=HORIZON, context_length=48):
        return np.asarray(pipeline.predict([CONTEXTS[0][:, None].copy()]))


def _t0(model: Any) -> NDArray[Any]:
    return np.stack([np.asarray(model.predict(x, HORIZON).quantiles) for x in CONTEXTS])


def _timesfm3(forecaster: Any) -> NDArray[Any]:
    found = [forecaster.predict(x, HORIZON, return_quantiles=True) for x in CONTEXTS]
    return np.stack([np.asarray(one.quantiles) for one in found])


def _timestral(forecaster: Any) -> NDArray[Any]:
    return np.stack([np.asarray(forecaster.forecast(x, HORIZON).quantiles) for x in CONTEXTS])


def _toto2(model: Any) -> NDArray[Any]:
    values = torch.tensor(CONTEXTS[0])[None, None]
    given = {"target": values, "target_mask": torch.ones_like(values, dtype=torch.bool)}
    found = model.forecast({**given, "series_ids": torch.zeros(1, 1, dtype=torch.long)}, HORIZON)
    return np.asarray(found)


FORECAST: dict[str, Callable[[Any], NDArray[Any]]] = {
    "chronos-t5": _chronos,
    "chronos-bolt": _chronos,
    "chronos2": _chronos,
    "timesfm": _timesfm,
    "toto": _toto,
    "moirai": _moirai,
    "moirai2": _moirai2,
    "moirai-moe": _moirai,
    "t0": _t0,
    "timestral": _timestral,
    "toto2": _toto2,
    "timesfm3": _timesfm3,
}


def forecast_native(family: str, pipeline: Any) -> NDArray[Any]:
    """A forecast as users of the upstream package make it; models that sample are seeded."""
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FORECAST[family](pipeline)
