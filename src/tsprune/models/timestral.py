"""Timestral: causal decoder over patches, then forecast queries; gated attention over time and variates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timestral import TimestralConfig, TimestralForecaster, TimestralModel
from torch import Tensor

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Projection, Readout, Size, Stack, TimeAxis
from tsprune.models.absent import AbsentAttention
from tsprune.models.batches import by_patches, first_output
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.contexts import padded
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster
from tsprune.models.objects import network
from tsprune.models.stated import flag, list_of, real, symmetric_levels, whole_number, word
from tsprune.models.variates import rows_of, targets_of

_SIZES = {  # of config.json
    **dict.fromkeys(("patch_size", "d_model", "num_heads", "mlp_hidden_dim"), whole_number()),
    **dict.fromkeys(("block_size", "context_length"), whole_number()),
    "block_schedule": list_of(word),
    "quantile_knots": symmetric_levels(LEVELS),
    "rope_theta": real(1e-6, 1e12),
    "rope_partial_factor": real(0, 1),
    "norm_eps": real(0, 1),
    "minimum_scale": real(1e-30, 1e6),
    "quantile_width_factor": real(1e-6, 1e6),
    **dict.fromkeys(("time_attn_gate", "variate_attn_gate"), word),
    **dict.fromkeys(("attn_bias", "mlp_bias", "use_asinh", "stabilize_with_global"), flag),
    **dict.fromkeys(("covariate_enabled", "split_context_horizon_attn", "attend_missing_patches"), flag),
}


def _site(path: str, index: int, attention: Any) -> AttentionSite:
    module, shape = f"{path}.attns.{index}", (attention.num_heads, attention.head_dim)
    return AttentionSite.of_fused(
        "time" if attention.is_time else "variate",
        module,
        ("wQKV", "wO"),
        *shape,
        interleaved=True,  # rows are (q or k or v, dimension, head)
        gate=None if attention._gate is None else Projection(f"{module}._gate", *shape),
        axis="time" if attention.is_time else "series",
        others=(f"{path}.attn_norms.{index}",),
        sizes=(Size(module, "num_heads", "heads"), Size(module, "embed_dim", "width")),
    )


def _anatomy(module: TimestralModel) -> Anatomy:
    blocks = []
    for number, layer in enumerate(module.transformer.layers):
        path = f"transformer.layers.{number}"
        sites = tuple(_site(path, index, attention) for index, attention in enumerate(layer.attns))
        blocks.append(Block(path, sites, MLPSite(f"{path}.mlp", (f"{path}.mlp_norm",))))
    time = TimeAxis(module.config.patch_size, future=1)
    stack = Stack("stack", tuple(blocks), module="transformer", time=time, causal=True)
    readout = Readout(("head.projection",), "transformer.out_norm")
    return Anatomy((stack,), module.config.d_model, readout=readout)


class AbsentTimestralAttention(AbsentAttention):
    is_time = True  # which of the masks, neither of which it reads


class Timestral(Forecaster):
    """`upstream` is the `TimestralForecaster`, with its defaults, which are those of its benchmarks.

    Series of as many patches are forecast together.
    """

    family = "timestral"
    absent = AbsentTimestralAttention
    multivariate = True
    reference_horizon = 1024  # GIFT-Eval's longest is 900
    licence_note = (
        "Timestral's released weights are under a licence with a revenue clause (modified MIT): read the "
        "LICENSE of the original before you use or publish what is made from them."
    )
    upstream: TimestralForecaster
    module: TimestralModel

    def __init__(self, upstream: TimestralForecaster, name: str) -> None:
        self.name, self.upstream, self.module = name, upstream, upstream.model.eval()
        self.anatomy = _anatomy(self.module)
        self.context_length, self.past_covariates = upstream.max_context, upstream.supports_covariates
        self.prefix_steps = upstream.patch_size  # a pass of one patch is shorter, but not another one
        self.readout_horizon = upstream.per_shot_horizon_patches * upstream.patch_size

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int, covariates: int = 0) -> Forecast:
        chosen = [self.upstream.quantile_levels.index(level) for level in LEVELS]
        with torch.no_grad():
            found = self._by_length(series, lambda rows: self._predicted(rows, horizon, covariates))
        quantiles = found[..., chosen].mT.flatten(0, 1).float()
        return Forecast(np.ascontiguousarray(quantiles.numpy(force=True)), LEVELS)

    def _by_length(self, series: list[NDArray[np.float32]], work: Callable[[Tensor], Tensor]) -> Tensor:
        """`work` on series of as many patches as one array [B, V, T], NaN in front; its results by series."""
        visible, patch = [x[..., -self.context_length :] for x in series], self.upstream.patch_size

        def of_places(places: list[int]) -> Tensor:
            rows = padded(rows_of([visible[place] for place in places]), patch)
            return work(torch.from_numpy(rows).unflatten(0, (len(places), -1)))

        return by_patches(visible, patch, of_places)

    def _predicted(self, rows: Tensor, horizon: int, covariates: int) -> Tensor:
        """Upstream's quantiles [B, V, horizon, Q] of [B, V + C, T]; NaN of series for which it has none."""
        targets = rows.shape[1] - covariates
        # upstream's method has inference mode, in which nothing can be recorded
        forecast: Any = TimestralForecaster.forecast.__wrapped__  # type: ignore[attr-defined]
        past = rows[:, targets:] if covariates else None
        try:
            found: Tensor = forecast(
                self.upstream, rows[:, :targets], horizon, past_covariates=past
            ).quantiles
        except ValueError as error:
            if not str(error).startswith("forecast produced"):
                raise
            if len(rows) > 1:  # one series must not take the others' forecasts away
                return torch.cat([self._predicted(row[None], horizon, covariates) for row in rows])
            shape = 1, targets, horizon, len(self.upstream.quantile_levels)
            return torch.full(shape, torch.nan, device=self.device)
        return found

    def _teacher_forced(self, series: list[NDArray[np.float32]], covariates: int = 0) -> Tensor:
        """Raw quantiles of the patch after the contexts, normalised, [B, patch * Q].

        The negated series pass through the network as in a forecast.
        """

        def first_pass(rows: Tensor) -> Tensor:
            output = first_output(self.module.head.projection, lambda: self._predicted(rows, 1, covariates))
            return output[:, -1].reshape(*rows.shape[:2], -1)

        return targets_of(self._by_length(series, first_pass).flatten(0, 1), series, covariates)

    def config_file(self) -> dict[str, Any]:
        return dict(self.module.config.to_dict())

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        super().to(device, dtype)
        self.module.transformer.rope.rebuild_inv_freq()  # as upstream's loader does, in float32

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go."""
        if not self.anatomy.whole_layers:
            return None
        kept = self.anatomy.stacks[0].numbers
        return {**config, "block_schedule": [config["block_schedule"][number] for number in kept]}

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Timestral:
        module = TimestralModel(TimestralConfig.from_dict(checkpoint.settings(_SIZES)))
        return cls(TimestralForecaster(module), checkpoint.name)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Timestral:
        """The model of a `TimestralForecaster` or its network in memory, which keeps its own settings."""
        module = network(upstream, TimestralModel, TimestralForecaster)
        forecaster = upstream if isinstance(upstream, TimestralForecaster) else TimestralForecaster(module)
        return cls(forecaster, name)
