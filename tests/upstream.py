"""The upstream pipelines, built without tsprune: what its forecasts must be equal to."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from chronos import Chronos2Pipeline
from chronos.chronos import ChronosPipeline
from chronos.chronos_bolt import ChronosBoltPipeline
from gluonts.model.forecast import SampleForecast
from numpy.typing import NDArray
from safetensors import safe_open
from t0.evaluation import T0Predictor
from t0.torch import T0Forecaster
from timesfm import ForecastConfig, configs
from timesfm.timesfm_2p5 import timesfm_2p5_torch
from timesfm.timesfm_2p5.timesfm_2p5_base import TimesFM_2p5_200M_Definition
from timesfm3.torch import TimesFM3Evaluator
from timestral import TimestralForecaster
from toto.data.util.dataset import MaskedTimeseries
from toto.inference.forecaster import TotoForecaster
from toto.model.toto import Toto
from toto2 import Toto2GluonTSModel, Toto2GluonTSModelConfig, Toto2Model
from uni2ts.distribution.mixture import Mixture
from uni2ts.model.moirai import MoiraiForecast, MoiraiModule
from uni2ts.model.moirai2 import Moirai2Forecast, Moirai2Module
from uni2ts.model.moirai_moe import MoiraiMoEForecast, MoiraiMoEModule

from tests.tiny import SAMPLES
from tsprune.models import draws

Array = NDArray[np.float32]
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
Upstream = Callable[[Sequence[Array], int], Array]


def upstream_bolt(directory: Path) -> Upstream:
    pipeline = ChronosBoltPipeline.from_pretrained(directory)

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pipeline.predict([torch.tensor(x) for x in contexts], prediction_length=horizon).numpy()

    return forecast


def _definition(stated: dict[str, Any]) -> TimesFM_2p5_200M_Definition:
    """Upstream's definition from what our config.json states."""
    blocks = ("tokenizer", "output_projection_point", "output_projection_quantiles")
    stack = stated["stacked_transformers"]
    return TimesFM_2p5_200M_Definition(
        **{
            **stated,
            **{name: configs.ResidualBlockConfig(**stated[name]) for name in blocks},
            "stacked_transformers": configs.StackedTransformersConfig(
                stack["num_layers"], configs.TransformerConfig(**stack["transformer"])
            ),
        }
    )


def upstream_timesfm(directory: Path, *, max_context: int | None = None) -> Upstream:
    """max_context : as users compile it; None: no more than the longest context needs"""
    stated = json.loads((directory / "config.json").read_text())

    class Module(timesfm_2p5_torch.TimesFM_2p5_200M_torch_module):
        config = _definition(stated["definition"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timesfm_2p5_torch, "TimesFM_2p5_200M_torch_module", Module)
        wrapper = timesfm_2p5_torch.TimesFM_2p5_200M_torch(torch_compile=False)
    wrapper.load_checkpoint(str(directory))

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        needed = math.ceil(max(map(len, contexts)) / 32) * 32
        wrapper.compile(
            ForecastConfig(
                max_context=max_context or min(stated["max_context"], needed),
                max_horizon=math.ceil(horizon / 128) * 128,
                normalize_inputs=True,
                per_core_batch_size=len(contexts),
                use_continuous_quantile_head=horizon <= wrapper.model.os,
                force_flip_invariance=True,
                infer_is_positive=True,
                fix_quantile_crossing=True,
            )
        )
        _, quantiles = wrapper.forecast(horizon, [x.copy() for x in contexts])
        return quantiles[..., 1:].transpose(0, 2, 1)

    return forecast


def upstream_t5(directory: Path) -> Upstream:
    """Series by series, each with the draws that tsprune gives it."""
    pipeline = ChronosPipeline.from_pretrained(directory)

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        paths = []
        for context in contexts:
            visible = context[-pipeline.model.config.context_length :]
            with draws.CategoricalDraws(draws.Noise([visible], 0), SAMPLES):
                paths.append(pipeline.predict(torch.tensor(context), horizon, num_samples=SAMPLES)[0])
        return sampled_quantiles(paths)

    return forecast


def upstream_chronos2(directory: Path) -> Upstream:
    pipeline = Chronos2Pipeline.from_pretrained(directory)

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        series = [torch.tensor(x) for x in contexts]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantiles, _ = pipeline.predict_quantiles(series, horizon, quantile_levels=LEVELS)
        return np.concatenate([of_series.mT.numpy() for of_series in quantiles])

    return forecast


def upstream_toto(directory: Path) -> Upstream:
    """Context by context through upstream's own sampling loop, which repeats the context per sample."""
    backbone = Toto.load_from_checkpoint(str(directory)).model
    patch = backbone.patch_embed.patch_size
    with safe_open(directory / "model.safetensors", "pt") as header:
        limit = int(header.metadata()["max_context"])

    def of_one(context: Array, horizon: int) -> torch.Tensor:
        variates = np.atleast_2d(context)
        noise = draws.Noise(list(variates), 0)

        def sample(mixture: torch.distributions.MixtureSameFamily, shape: object = None) -> torch.Tensor:
            """tsprune's draws for the last patch, which is all that upstream's loop uses."""
            numbers = noise.uniform(SAMPLES, patch, 3).transpose(0, 1)
            index = draws.categorical(mixture.mixture_distribution.probs[:, :, -patch:], numbers[..., :1])
            parts = mixture.component_distribution
            df, loc, scale = (
                x[:, :, -patch:].gather(-1, index)[..., 0] for x in (parts.df, parts.loc, parts.scale)
            )
            drawn = torch.zeros(mixture.batch_shape)
            polar = draws.polar(numbers[..., 1], numbers[..., 2])
            drawn[:, :, -patch:] = draws.student_t(df, loc, scale, *polar)
            return drawn

        values = torch.tensor(variates)
        zeros = torch.zeros(values.shape, dtype=torch.int)
        series = MaskedTimeseries(values.nan_to_num(0), torch.isfinite(values), zeros, zeros, zeros[:, 0])
        with pytest.MonkeyPatch.context() as patcher:
            patcher.setattr(torch.distributions.MixtureSameFamily, "sample", sample)
            forecaster = TotoForecaster(backbone)
            output = forecaster.forecast(series, horizon, num_samples=SAMPLES, samples_per_batch=SAMPLES)
        return output.samples[0].mT

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        paths = [row for x in contexts for row in of_one(x[..., -limit:], horizon)]
        return sampled_quantiles(paths)

    return forecast


def upstream_moirai(directory: Path) -> Upstream:
    """Upstream's module over its full context length, padded as its predictor pads."""
    module = MoiraiModule.from_pretrained(directory)
    patch = module.patch_sizes[0]
    with safe_open(directory / "model.safetensors", "pt") as header:
        limit = int(header.metadata()["max_context"])

    def of_one(context: Array, horizon: int) -> torch.Tensor:
        variates = np.atleast_2d(context)
        model = MoiraiForecast(
            prediction_length=horizon,
            target_dim=len(variates),
            feat_dynamic_real_dim=0,
            past_feat_dynamic_real_dim=0,
            context_length=limit,
            module=module,
            patch_size=patch,
            num_samples=SAMPLES,
        )
        tokens = model.prediction_token_length(patch)
        numbers = draws.Noise(list(variates), 0).uniform(SAMPLES, tokens, patch, 3)
        numbers = numbers.transpose(0, 1).flatten(1, 2)[:, None]
        tokens *= len(variates)

        def sample(mixture: Mixture, shape: torch.Size) -> torch.Tensor:
            """tsprune's draws where upstream looks: the last tokens, the patch's steps."""
            future = (slice(None), slice(-tokens, None), slice(0, patch))
            return mixture_draws(mixture, shape, future, numbers)

        padding = limit - variates.shape[1]
        values = torch.tensor(np.pad(variates, ((0, 0), (padding, 0)), constant_values=np.nan)).T[None]
        with pytest.MonkeyPatch.context() as patcher, torch.no_grad():
            patcher.setattr(Mixture, "sample", sample)
            paths = model(
                past_target=values.nan_to_num(0),
                past_observed_target=torch.isfinite(values),
                past_is_pad=torch.arange(limit)[None] < padding,
            )
        return paths.reshape(SAMPLES, horizon, -1).permute(2, 0, 1)

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        paths = [row for x in contexts for row in of_one(x[..., -limit:], horizon)]
        return sampled_quantiles(paths)

    return forecast


def mixture_draws(
    mixture: Mixture, shape: torch.Size, places: tuple[Any, ...], numbers: torch.Tensor
) -> torch.Tensor:
    """Draws [*shape, *batch] of one of Moirai's mixtures by uniform numbers at `places`, 0 elsewhere."""
    which, one, other = (numbers[..., i] for i in range(3))
    index = draws.categorical(mixture.weights.probs[places], which.movedim(0, -1)).movedim(-1, 0)
    student, gaussian, binomial, log_normal = mixture.components
    both = [gaussian, log_normal.base_dist]
    of_both = [draws.normal(x.loc[places], x.scale.expand_as(x.loc)[places], one) for x in both]
    kinds = [
        draws.student_t(
            *(getattr(student, name)[places] for name in ("df", "loc", "scale")), *draws.polar(one, other)
        ),
        of_both[0],
        draws.negative_binomial(
            *(getattr(binomial, name)[places].expand_as(one) for name in ("total_count", "logits")),
            one,
            other,
        ),
        of_both[1].exp(),
    ]
    drawn = torch.zeros(*shape, *mixture.batch_shape)
    drawn[(slice(None), *places)] = torch.stack(kinds, -1).gather(-1, index[..., None])[..., 0].float()
    return drawn


def upstream_moirai_moe(directory: Path, *, covariates: int = 0, history: int | None = None) -> Upstream:
    """Upstream's loop in one batch.

    covariates : how many rows of each context, the last ones, are past covariates
    history : its context length; None: that of the longest context
    """
    module = MoiraiMoEModule.from_pretrained(directory)
    patch = module.patch_sizes[0]
    with safe_open(directory / "model.safetensors", "pt") as header:
        limit = int(header.metadata()["max_context"])

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        windows = [np.atleast_2d(x[..., -limit:]) for x in contexts]
        longest = history or max(x.shape[1] for x in windows)
        variates = len(windows[0]) - covariates
        model = MoiraiMoEForecast(
            prediction_length=horizon,
            target_dim=variates,
            feat_dynamic_real_dim=0,
            past_feat_dynamic_real_dim=covariates,
            context_length=longest,
            module=module,
            patch_size=patch,
            num_samples=SAMPLES,
        )
        past_tokens, ahead = model.context_token_length(patch), model.prediction_token_length(patch)
        noise = draws.Noise([row for x in windows for row in x[:variates]], 0)
        # the last token of each variate's history, then those of its horizon
        first = torch.arange(variates)
        reads = [first * past_tokens + past_tokens - 1]
        reads += [variates * past_tokens + first * ahead + number for number in range(ahead - 1)]
        passes = iter(reads)

        def sample(mixture: Mixture, shape: torch.Size) -> torch.Tensor:
            """tsprune's draws where upstream looks in this pass."""
            numbers = noise.uniform(SAMPLES, patch, 3).transpose(0, 1).unflatten(1, (-1, variates))
            leading = (slice(None),) * (len(mixture.batch_shape) - 2)
            numbers = numbers if len(leading) == 1 else numbers[None]
            return mixture_draws(mixture, shape, (*leading, next(passes), slice(0, patch)), numbers)

        padding = torch.tensor([longest - x.shape[1] for x in windows])[:, None]
        whole = torch.full((len(windows), longest, variates + covariates), torch.nan)
        for row, values in zip(whole, windows, strict=True):
            row[longest - values.shape[1] :] = torch.tensor(values.T)
        filled, known = whole.nan_to_num(0), torch.isfinite(whole)
        past = {"past_feat_dynamic_real": filled, "past_observed_feat_dynamic_real": known}
        with pytest.MonkeyPatch.context() as patcher, torch.no_grad():
            patcher.setattr(Mixture, "sample", sample)
            paths = model(
                past_target=filled[..., :variates],
                past_observed_target=known[..., :variates],
                past_is_pad=torch.arange(longest)[None] < padding,
                **({name: x[..., variates:] for name, x in past.items()} if covariates else {}),
            )
        assert next(passes, None) is None
        paths = paths.reshape(len(windows), SAMPLES, horizon, variates).permute(0, 3, 1, 2)
        return sampled_quantiles(list(paths.flatten(0, 1)))

    return forecast


def upstream_moirai2(directory: Path) -> Upstream:
    module = Moirai2Module.from_pretrained(directory)
    with safe_open(directory / "model.safetensors", "pt") as header:
        limit = int(header.metadata()["max_context"])

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        model = Moirai2Forecast(
            prediction_length=horizon,
            target_dim=1,
            feat_dynamic_real_dim=0,
            past_feat_dynamic_real_dim=0,
            context_length=limit,
            module=module,
        )
        return model.predict([context[-limit:].copy() for context in contexts])

    return forecast


def upstream_t0(directory: Path) -> Upstream:
    """Upstream's predictor for benchmarks; several variates as an array of one group."""
    model = T0Forecaster.from_pretrained(directory)
    adjusted = T0Predictor(model, 1).inference_kwargs
    with safe_open(directory / "model.safetensors", "pt") as header:
        limit = int(header.metadata()["max_context"])

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        start = pd.Period("2020-01-01", "h")
        predictor = T0Predictor(model, horizon, quantile_levels=LEVELS, context_length=limit)
        if contexts[0].ndim == 1:
            found = predictor.predict([{"target": x, "start": start} for x in contexts])
            return np.stack([one.forecast_array for one in found])
        several = [model.predict(x[None, :, -limit:], horizon, LEVELS, **adjusted) for x in contexts]
        return np.concatenate([one.quantiles[0].mT.numpy() for one in several])

    return forecast


def upstream_timestral(directory: Path) -> Upstream:
    """Series of as many patches in one array, NaN in front."""
    forecaster = TimestralForecaster.from_pretrained(directory)
    chosen = [forecaster.quantile_levels.index(level) for level in LEVELS]

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        series = [np.atleast_2d(x[..., -forecaster.max_context :]) for x in contexts]
        patches = np.array([math.ceil(x.shape[1] / forecaster.patch_size) for x in series])
        found: dict[int, Array] = {}
        for count in np.unique(patches):
            places = np.flatnonzero(patches == count)
            longest = max(series[place].shape[1] for place in places)
            alike = [
                np.pad(series[i], ((0, 0), (longest - series[i].shape[1], 0)), constant_values=np.nan)
                for i in places
            ]
            quantiles = forecaster.forecast(np.stack(alike), horizon).quantiles[..., chosen]
            found |= dict(zip(places.tolist(), quantiles.mT.numpy(), strict=True))
        return np.concatenate([found[place] for place in range(len(series))])

    return forecast


def upstream_toto2(directory: Path) -> Upstream:
    """The predictor of upstream's notebook for GIFT-Eval."""
    model = Toto2Model.from_pretrained(directory)
    with safe_open(directory / "model.safetensors", "pt") as header:
        limit = int(header.metadata()["max_context"])

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        start, several = pd.Period("2020-01-01", "h"), contexts[0].ndim > 1
        config = Toto2GluonTSModelConfig(horizon, limit, len(contexts[0]) if several else 1)
        predictor = Toto2GluonTSModel(model, config).create_predictor(len(contexts), "cpu")
        found = [
            x.forecast_array for x in predictor.predict([{"target": x, "start": start} for x in contexts])
        ]
        return np.concatenate([x.transpose(1, 0, 2) for x in found]) if several else np.stack(found)

    return forecast


def upstream_timesfm3(directory: Path) -> Upstream:
    """Upstream's evaluator for benchmarks, on series of as many patches at a time."""
    evaluator = TimesFM3Evaluator(checkpoint_path=str(directory), per_core_batch_size=1024, device="cpu")
    with safe_open(directory / "model.safetensors", "pt") as header:
        limit = int(header.metadata()["max_context"])

    def forecast(contexts: Sequence[Array], horizon: int) -> Array:
        series = [np.atleast_2d(x[..., -limit:]) for x in contexts]
        first = [int(np.argmax(~np.isnan(x).all(axis=0))) for x in series]
        patches = [
            math.ceil((x.shape[1] - lost) / evaluator.model.input_patch_len)
            for x, lost in zip(series, first, strict=True)
        ]
        found: dict[int, Array] = {}
        for count in set(patches):
            places = [place for place, one in enumerate(patches) if one == count]
            outputs = evaluator.predict_batch([series[place] for place in places], horizon)
            found |= {place: out.quantiles.swapaxes(1, 2) for place, out in zip(places, outputs, strict=True)}
        return np.concatenate([found[place] for place in range(len(series))])

    return forecast


def sampled_quantiles(paths: Sequence[torch.Tensor]) -> Array:
    """Quantiles [B, 9, H] of paths [S, H], by gluonts."""
    start = pd.Period("2020-01-01", "h")
    forecasts = [SampleForecast(x.numpy(), start) for x in paths]
    return np.stack([[x.quantile(level) for level in LEVELS] for x in forecasts]).astype(np.float32)


UPSTREAM: dict[str, Callable[[Path], Upstream]] = {
    "chronos-bolt": upstream_bolt,
    "chronos-t5": upstream_t5,
    "chronos2": upstream_chronos2,
    "timesfm": upstream_timesfm,
    "toto": upstream_toto,
    "moirai": upstream_moirai,
    "moirai2": upstream_moirai2,
    "moirai-moe": upstream_moirai_moe,
    "t0": upstream_t0,
    "timestral": upstream_timestral,
    "toto2": upstream_toto2,
    "timesfm3": upstream_timesfm3,
}

# How far a forecast may be from upstream's, relative to its size. Where it is not 0, tsprune batches
# differently: a sampling model's context once a window and not once a path; Chronos-T5's short series are
# unpadded, so that the sum of their scale may round its last bit otherwise; TimesFM 3's negated series pass
# after the others, not among them.
TOLERANCE = {"timesfm3": 1e-6, "chronos-t5": 2e-7, "toto": 4e-6, "moirai": 2e-6}
