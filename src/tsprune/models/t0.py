"""t0: causal decoder over patches, attending over time or over the variates of a group, quantiles at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from t0.config import T0Config
from t0.forecaster import ForecasterBase
from t0.torch import T0Forecaster
from torch import Tensor

from tsprune.anatomy import Anatomy, AttentionSite, Block, Factor, MLPSite, Readout, Size, Stack, TimeAxis
from tsprune.errors import TspruneError
from tsprune.models.checkpoints import MAX_CONTEXT, Checkpoint
from tsprune.models.contexts import CheckedContext
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster
from tsprune.models.objects import network
from tsprune.models.stated import flag, levels, or_none, real, whole_number, word
from tsprune.models.variates import places_by, rows_of, targets_of, variates_in

# upstream's predictor reads whole histories; the weights' metadata may state less
_CONTEXT = 8192
# with which upstream's predictor for benchmarks calls the model
_ADJUSTED = "trim_leading_missing", "symmetric_averaging", "clip_nonnegative", "snap_integers"
_SIZES = {  # of config.json; the first published one lacks some of them
    **dict.fromkeys(("embed_dim", "num_layers", "num_heads", "mlp_hidden_dim", "patch_size"), whole_number()),
    "group_every_n": whole_number(-1),
    "dropout": real(0, 0.99),
    "quantile_levels": levels,
    "scaler_eps": real(1e-30, 1e6),
    **dict.fromkeys(("scaler_eps_mode", "xpos_scale_layout"), word),
    **dict.fromkeys(("scaler_use_arcsinh", "scaler_zero_no_value"), flag),
    "dtype": or_none(word),
}


def _anatomy(module: T0Forecaster) -> Anatomy:
    blocks = []
    for index, layer in enumerate(module.transformer.layers):
        path = f"transformer.layers.{index}"
        attention, inner = f"{path}.attention_block.attention", layer.attention_block.attention
        over_time = layer.attention_type.value == "time"
        site = AttentionSite.of_fused(
            layer.attention_type.value,
            attention,
            ("wQKV", "wO"),
            inner.num_heads,
            inner.head_dim,
            factors=(Factor(f"{attention}.q_norm.scale"), Factor(f"{attention}.k_norm.scale")),
            axis="time" if over_time else "series",
            swapped=not over_time,
            others=(f"{path}.attention_block.norm",),
            sizes=(Size(attention, "num_heads", "heads"),),
        )
        blocks.append(Block(path, (site,), MLPSite(f"{path}.mlp", (f"{path}.norm",))))
    time, sizes = TimeAxis(module.patch_size, future=1), (Size("transformer", "num_layers", "layers"),)
    stack = Stack("stack", tuple(blocks), module="transformer", time=time, causal=True, sizes=sizes)
    # a position forecasts the patch after its own; the last one is that of the forecast patch
    readout = Readout(("decoder",), "transformer.out_norm", position=-2)
    return Anatomy((stack,), module.config.embed_dim, readout=readout)


class T0(Forecaster):
    """`upstream` is the `T0Forecaster`, called as upstream's predictor for benchmarks calls it.

    It forecasts series of one length together, since padding in front moves the patches.
    """

    family = "t0"
    multivariate = True
    past_covariates = True
    half = False
    reference_horizon = 1024  # GIFT-Eval's longest is 900
    upstream: T0Forecaster
    module: T0Forecaster

    def __init__(self, module: T0Forecaster, config: Mapping[str, object], name: str, context: int) -> None:
        self.name, self.config, self.context_length = name, dict(config), context
        self.module = self.upstream = module.eval()
        self.anatomy, self.readout_horizon = _anatomy(module), module.max_horizon

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int, covariates: int = 0) -> Forecast:
        visible, variates = [x[..., -self.context_length :] for x in series], variates_in(series[0])
        quantiles = np.empty((len(series), variates, len(LEVELS), horizon), dtype=np.float32)
        for rows in _alike(visible):
            found = self._predicted([visible[row] for row in rows], horizon)
            quantiles[rows] = found.reshape(len(rows), variates, horizon, -1).transpose(0, 1, 3, 2)
        kept = quantiles[:, : variates - covariates]  # upstream takes past covariates for variates
        return Forecast(np.ascontiguousarray(kept).reshape(-1, len(LEVELS), horizon), LEVELS)

    def _predicted(self, series: Sequence[NDArray[np.float32]], horizon: int) -> NDArray[np.float32]:
        """Upstream's quantiles of series of one length, [B, H, Q] or [B, V, H, Q]."""
        with torch.no_grad():  # upstream's own method has inference mode, in which nothing can be recorded
            how: Any = dict.fromkeys(_ADJUSTED, True)
            found = ForecasterBase.predict(self.module, np.stack(series), horizon, LEVELS, **how)
        return found.quantiles.numpy(force=True)  # type: ignore[no-any-return]

    def _teacher_forced(self, series: list[NDArray[np.float32]], covariates: int = 0) -> Tensor:
        """The decoder's output for the patch after the contexts, [B, patch * Q], not sorted.

        The negated series pass through the network as in a forecast.
        """
        visible = [x[..., -self.context_length :] for x in series]
        rows = np.arange(len(rows_of(series))).reshape(len(series), -1)
        outputs, order = [], []
        for places in _alike(visible):
            recorded: list[Tensor] = []
            hook = self.module.decoder.register_forward_hook(lambda _m, _i, x, kept=recorded: kept.append(x))
            try:
                self._predicted([visible[place] for place in places], 1)
            finally:
                hook.remove()
            outputs.append(recorded[0][:, -2])
            order += rows[places].ravel().tolist()
        whole = torch.cat(outputs)[torch.from_numpy(np.argsort(order))]
        return targets_of(whole, series, covariates)

    def _readout_of(
        self, left: list[Tensor], series: list[CheckedContext], count: int, horizon: int
    ) -> Tensor:
        """Upstream takes both of its passes out of torch before it averages, clips and rounds them."""
        if len({(variates_in(context.values), context.covariates) for context in series}) > 1:
            raise TspruneError(f"{self.name} has gradients of contexts with equal numbers of variates only")
        visible = [context.values[..., -self.context_length :] for context in series]
        rows, passes = np.arange(len(rows_of(visible))).reshape(len(series), -1), iter(left)
        parts, order = [], []
        for places in _alike(visible):
            history = [x[np.isfinite(x)] for x in rows_of([visible[place] for place in places])]
            parts.append(_adjusted(passes, history))
            order += rows[places].ravel().tolist()
        whole = torch.cat(parts)[torch.from_numpy(np.argsort(order))].transpose(1, 2)
        return targets_of(whole, visible, series[0].covariates)

    def config_file(self) -> dict[str, Any]:
        return dict(self.config)

    def stored_metadata(self) -> dict[str, str]:
        return {MAX_CONTEXT: str(self.context_length)}

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go if every n-th of those that are left attends over groups."""
        if not self.anatomy.whole_layers:
            return None
        roles = [block.attention[0].role for block in self.anatomy.stacks[0].blocks]
        for every in (-1, *range(1, len(roles) + 1)):
            if len(roles) % abs(every) == 0 and roles == _pattern(len(roles), every):
                return {**config, "num_layers": len(roles), "group_every_n": every}
        return None

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> T0:
        config = checkpoint.settings(_SIZES)
        module = T0Forecaster.from_config(T0Config.from_dict(config))
        return cls(module, config, checkpoint.name, checkpoint.context_length(_CONTEXT, module.patch_size))

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> T0:
        """The model of a `T0Forecaster` in memory."""
        module = network(upstream, T0Forecaster)
        return cls(module, module.config.to_dict(), name, _CONTEXT)


def _adjusted(passes: Iterator[Tensor], history: Sequence[NDArray[np.float32]]) -> Tensor:
    """Upstream's adjustments of quantiles [B, H, Q], with their gradients (rounded ones have none).

    passes : the forecasts, and those of the negated series, if one of them was negated
    history : the known values of each series
    """
    forecast = next(passes).double()
    at_zero, positive, whole = (
        torch.tensor(rows, device=forecast.device)[:, None, None]
        for rows in (
            [values.min() == 0 for values in history],
            [values.min() >= 0 for values in history],
            [np.array_equal(values, np.round(values)) for values in history],
        )
    )
    if not at_zero.all():  # quantiles and levels are symmetric
        mirrored = next(passes).double().flip(-1)
        forecast = torch.where(at_zero, forecast, (forecast - mirrored) / 2)
    forecast = torch.where(positive, forecast.clamp_min(0.0), forecast)
    return torch.where(whole, forecast.round(), forecast).float()


def _pattern(layers: int, every: int) -> list[str]:
    """Roles of the layers that upstream makes from `group_every_n`."""
    return ["group" if every > 0 and (index + 1) % every == 0 else "time" for index in range(layers)]


def _alike(series: Sequence[NDArray[np.float32]]) -> list[list[int]]:
    """Places of series of one length."""
    return list(places_by(values.shape[-1] for values in series).values())
