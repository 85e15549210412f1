"""TimesFM 3: causal decoder over patches, attending over time and then over variates, in both signs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timesfm3.torch import ModelConfig, TimesFM3Evaluator, TimesFM3Forecaster, TimesFM3Torch
from timesfm3.torch.timesfm3_forecaster import linear_interpolation
from torch import Tensor

from tsprune.anatomy import Anatomy, AttentionSite, Block, Factor, MLPSite, Readout, Size, Stack, TimeAxis
from tsprune.errors import TspruneError
from tsprune.models.absent import AbsentAttention
from tsprune.models.batches import by_patches, first_output
from tsprune.models.checkpoints import MAX_CONTEXT, Checkpoint
from tsprune.models.contexts import padded
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster
from tsprune.models.objects import network
from tsprune.models.stated import flag, mapping, real, require, symmetric_levels, whole_number, word
from tsprune.models.variates import rows_of, targets_of

_CONTEXT = 15360  # upstream's limit; the weights' metadata may state less
_MOST_VARIATES = 32  # upstream's limit in benchmarks
_SIZES = {  # of config.json
    **dict.fromkeys(("input_patch_len", "output_patch_len"), whole_number()),
    "quantiles": symmetric_levels(LEVELS),
    **dict.fromkeys(("residual_block_config", "transformer_config"), mapping),
    "value_clip": real(0),
    "linear_detrending_threshold": real(0),
    **dict.fromkeys(("use_variate_attention", "use_stitching", "use_linear_detrending"), flag),
    **dict.fromkeys(("use_iterative_cpm_revin", "use_frozen_running_stats"), flag),
    "input_transform": word,
}
_INNER = {  # of the objects in it
    **dict.fromkeys(("num_layers", "model_dims", "hidden_dims", "output_dims", "num_heads"), whole_number())
}


def _site(block: str, role: str, attention: Any) -> AttentionSite:
    short = "seq" if role == "time" else "var"
    path, norms = f"{block}.{short}_attn", (f"{block}.pre_{short}_attn_ln", f"{block}.post_{short}_attn_ln")
    normed = ("query_ln", "key_ln") if attention.query_ln is not None else ()
    factors = [Factor(f"{path}.{name}.weight") for name in normed]
    return AttentionSite.of_layers(
        role,
        path,
        ("query_proj", "key_proj", "value_proj", "out_proj"),
        attention.num_heads,
        attention.head_dim,
        factors=(*factors, Factor(f"{path}.per_dim_scale.per_dim_scale", "softplus")),
        axis="time" if role == "time" else "series",
        folded=role != "time",
        others=norms,
        norm=norms[1],
        sizes=(Size(path, "num_heads", "heads"), Size(path, "in_features", "width")),
    )


def _anatomy(module: TimesFM3Torch) -> Anatomy:
    blocks = []
    for number, layer in enumerate(module.transformer_stack.layers):
        path = f"transformer_stack.layers.{number}"
        sites = [_site(path, "time", layer.seq_attn)]
        if layer.use_variate_attention:
            sites.append(_site(path, "variate", layer.var_attn))
        others = tuple(f"{path}.{name}" for name in ("pre_ff_ln", "ff0", "post_ff_ln"))
        blocks.append(Block(path, tuple(sites), MLPSite(f"{path}.ff1", others, norm=others[-1])))
    # a position forecasts the output patch after it: the last position of the context is read
    time = TimeAxis(module.input_patch_len, future=module.rolls)
    stack = Stack("stack", tuple(blocks), module="transformer_stack", time=time, causal=True)
    readout = Readout(("output_head",), position=-1 - module.rolls)
    return Anatomy((stack,), module.transformer_config.transformer.model_dims, readout=readout)


class AbsentTimesFM3Attention(AbsentAttention):
    def forward(self, *args: Any, decode_cache: Any = None, **kwargs: Any) -> Any:
        return self.contribution(args[0]).expand(args[0].shape), decode_cache, None


class TimesFM3(Forecaster):
    """`upstream` is the `TimesFM3Evaluator`, whose settings for benchmarks are used."""

    family = "timesfm3"
    absent = AbsentTimesFM3Attention
    half = False
    multivariate = True
    past_covariates = True
    reference_horizon = 1024  # GIFT-Eval's longest is 900
    licence_note = (
        "TimesFM 3's released weights are under a non-commercial licence, as is what is made from them."
    )
    refusal = MappingProxyType({"transformer_config": {}})  # else upstream fills missing weights at random
    upstream: TimesFM3Forecaster
    module: TimesFM3Torch

    def __init__(self, module: TimesFM3Torch, name: str, context: int) -> None:
        self.name, self.module, self.context_length = name, module.eval(), context
        self.anatomy = _anatomy(module)
        self.prefix_steps = self.readout_horizon = module.output_patch_len
        self.upstream = TimesFM3Evaluator.__new__(TimesFM3Evaluator)
        self.upstream.model, self.upstream.device = module, self.device
        patches, levels = (module.input_patch_len, module.output_patch_len), list(module.quantiles)
        self.upstream.config = ModelConfig("", 4, *patches, levels, len(levels) // 2)

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int, covariates: int = 0) -> Forecast:
        visible = [np.atleast_2d(x[..., -self.context_length :]) for x in series]
        targets, each = len(visible[0]) - covariates, _MOST_VARIATES - covariates
        if each < 1:
            raise TspruneError(f"{self.name} reads at most {_MOST_VARIATES - 1} past covariates")
        groups = [list(range(targets))]
        if targets > each:  # as upstream: the last group is filled up with the first variates
            groups = [[row % targets for row in range(i, i + each)] for i in range(0, targets, each)]
        chosen = ([x[[*group, *range(targets, len(x))]] for x in visible] for group in groups)
        with torch.no_grad():
            parts = [self._quantiles(some, horizon, covariates) for some in chosen]
        quantiles = torch.cat(parts, 1)[:, :targets].flatten(0, 1)
        return Forecast(np.ascontiguousarray(quantiles.numpy(force=True)), LEVELS)

    def _quantiles(self, series: list[NDArray[np.float32]], horizon: int, covariates: int) -> Tensor:
        """Quantiles [B, V, Q, horizon] of [V + C, T], adjusted as upstream's `predict_batch` does."""
        clean, targets = [_clean(x, covariates) for x in series], len(series[0]) - covariates
        chosen = [self.module.quantiles.index(level) for level in LEVELS]
        positive = np.array([(x[:targets] >= 0).any(1) & ~(x[:targets] < 0).any(1) for x in series])

        def of_places(places: list[int]) -> Tensor:
            some = [[sign * clean[place] for place in places] for sign in (1, -1)]
            both = [self._decoded(one, horizon, covariates)[:, :targets].sort(-1).values for one in some]
            quantiles = (both[0] - both[1].flip(-1)) / 2
            clipped = torch.from_numpy(positive[places]).to(self.device)[..., None, None]
            return torch.where(clipped, quantiles.clamp_min(0.0), quantiles)[:, :, :horizon, chosen].mT

        return by_patches(clean, self.module.input_patch_len, of_places)

    def _decoded(self, series: list[NDArray[np.float32]], horizon: int, covariates: int) -> Tensor:
        """The network's quantiles [B, V + C, H, Q] of series of as many patches; H: whole output patches."""
        rows, steps = padded(rows_of(series), self.module.input_patch_len, 0.0), self.module.output_patch_len
        values = torch.from_numpy(rows).to(self.device).unflatten(0, (len(series), -1))
        targets = len(series[0]) - covariates
        missing = torch.tensor([values.shape[-1] - x.shape[-1] for x in series], device=self.device)
        decoded: Tensor = self.module.decode(
            values[:, :targets],
            math.ceil(horizon / steps) * steps,
            past_only_covariates=values[:, targets:] if covariates else None,
            mask=torch.arange(values.shape[-1], device=self.device) < missing[:, None],
        )
        return decoded

    def _teacher_forced(self, series: list[NDArray[np.float32]], covariates: int = 0) -> Tensor:
        """Normalised quantiles of the output patch after the contexts, [B, output patch * Q]."""
        clean = [_clean(np.atleast_2d(x[..., -self.context_length :]), covariates) for x in series]

        def of_places(places: list[int]) -> Tensor:
            some = [[sign * clean[place] for place in places] for sign in (1, -1)]  # as in a forecast
            head = self.module.output_head
            output = first_output(head, lambda: [self._decoded(one, 1, covariates) for one in some])
            return output[:, :, -1 - self.module.rolls]

        whole = by_patches(clean, self.module.input_patch_len, of_places)
        return targets_of(whole.flatten(0, 1), series, covariates)

    def config_file(self) -> dict[str, Any]:
        return dict(self.module.to_dict())

    def stored_metadata(self) -> dict[str, str]:
        return {MAX_CONTEXT: str(self.context_length)}

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        super().to(device, dtype)
        self.upstream.device = device

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go."""
        left = {**config["transformer_config"], "num_layers": len(self.anatomy.stacks[0].blocks)}
        return {**config, "transformer_config": left} if self.anatomy.whole_layers else None

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> TimesFM3:
        config = checkpoint.settings(_SIZES)
        stack, residual = config.get("transformer_config", {}), config.get("residual_block_config", {})
        for part in (residual, stack, stack.get("transformer", {})):
            require(part, _INNER, "config.json", required=False)
        module = TimesFM3Torch(**config)
        return cls(module, checkpoint.name, checkpoint.context_length(_CONTEXT, module.input_patch_len))

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> TimesFM3:
        """The model of a `TimesFM3Forecaster` or its network in memory."""
        return cls(network(upstream, TimesFM3Torch, TimesFM3Forecaster), name, _CONTEXT)


def _clean(values: NDArray[np.float32], covariates: int) -> NDArray[np.float32]:
    """[V + C, T] from the first step at which a target is known, gaps interpolated, as upstream does."""
    known = ~np.isnan(values[: len(values) - covariates]).all(axis=0)
    return np.asarray(linear_interpolation(values[:, int(np.argmax(known)) :]))
