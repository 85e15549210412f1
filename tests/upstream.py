"""The upstream pipelines, built without tsprune: what its forecasts must be equal to."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chronos.chronos_bolt import ChronosBoltPipeline
from numpy.typing import NDArray
from timesfm import ForecastConfig, configs
from timesfm.timesfm_2p5 import timesfm_2p5_torch
from timesfm.timesfm_2p5.timesfm_2p5_base import TimesFM_2p5_200M_Definition

Array = NDArray[np.float32]
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


UPSTREAM: dict[str, Callable[[Path], Upstream]] = {"chronos-bolt": upstream_bolt, "timesfm": upstream_timesfm}
