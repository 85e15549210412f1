"""Toto 2.0: causal decoder over patches, layers over time or over variates, quantiles at once.

It uses unit scaling (u-muP: Blake et al., arXiv 2407.17465): a layer divides its product by the square root
of its width, and a sublayer's output y and the stream x become (tau y + x) / sqrt(1 + tau^2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from toto2 import Toto2GluonTSModel, Toto2GluonTSModelConfig, Toto2Model, Toto2ModelConfig
from toto2.model import ffill_imputation

from tsprune.anatomy import Anatomy, AttentionSite, Block, Factor, MLPSite, Readout, Size, Stack, TimeAxis
from tsprune.errors import TspruneError
from tsprune.models.batches import first_output
from tsprune.models.checkpoints import MAX_CONTEXT, Checkpoint
from tsprune.models.contexts import CheckedContext
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster
from tsprune.models.objects import network
from tsprune.models.stated import flag, or_none, real, whole_number
from tsprune.models.unit_scaling import exact_gradients, quick_scales
from tsprune.models.variates import targets_of

_CONTEXT = 4096  # of upstream's notebook for GIFT-Eval; the weights' metadata may state less
_READOUT = "output_head.param_projection.proj"
_COUNTS = "patch_size", "d_model", "num_heads", "num_layers", "layer_group_size", "num_output_patches"
_FLAGS = "variate_layer_first", "attn_bias", "mlp_bias", "pre_norm", "qk_norm", "norm_include_weight"
_SIZES = {  # of config.json
    **dict.fromkeys(_COUNTS, whole_number()),
    "num_variate_layers_per_group": whole_number(0),
    **dict.fromkeys(("d_ff", "qk_dim", "v_dim", "num_groups", "heads_per_group"), or_none(whole_number())),
    **dict.fromkeys(("dropout_p", "norm_eps"), real(0, 0.99)),
    **dict.fromkeys(("residual_mult", "residual_attn_ratio"), real(1e-9, 1e9)),
    **dict.fromkeys((*_FLAGS, "per_dim_scale", "use_xpos"), flag),
    "qk_norm_include_weight": or_none(flag),
}


def _anatomy(module: Toto2Model) -> Anatomy:
    config, decoder, blocks, mixing = module.config, module.transformer, [], []
    for index, layer in enumerate(decoder.layers):
        path = f"transformer.layers.{index}"
        attention, across = f"{path}.attn", layer.attn.is_variate_layer
        norms = ("q_norm", "k_norm") if config.qk_norm and config.qk_norm_include_weight else ()
        factors = [Factor(f"{attention}.{name}.weight") for name in norms]
        factors += [Factor(f"{attention}._pds.per_dim_scale", "softplus")] * config.per_dim_scale
        site = AttentionSite.of_fused(
            "variate" if across else "time",
            attention,
            ("in_proj", "out_proj"),
            config.num_heads,
            config.v_dim,
            key_heads=config.num_groups,
            query_dim=config.qk_dim,
            factors=tuple(factors),
            axis="series" if across else "time",
            others=(f"{path}.norm1",),
            unit_scaled=True,
            sizes=(
                Size(attention, "_Hq", "heads"),
                Size(attention, "_Hkv", "key_heads"),
                Size(attention, "_split_sizes", "widths"),
            ),
        )
        mlp = MLPSite(f"{path}.ffn", (f"{path}.norm2",))
        blocks.append(Block(path, (site,), mlp, across=int(across)))
        mixing.append((f"stack.{index}.{site.role}", f"{path}.attn_tau"))
        mixing.append((f"stack.{index}.mlp", f"{path}.mlp_tau"))
    # a position forecasts the patch after its own; the last one is that of the forecast patch
    readout = Readout((_READOUT,), "transformer.out_norm", position=-2)
    axis = TimeAxis(config.patch_size, future=1)
    stack = Stack("stack", tuple(blocks), module="transformer", time=axis, causal=True, mixing=tuple(mixing))
    return Anatomy((stack,), config.d_model, readout=readout)


class Toto2(Forecaster):
    """`upstream` is the `Toto2Model`, called as upstream's notebook for GIFT-Eval calls it: in one pass.

    Series are padded to the context length, since padding in front moves the patches. The last patch counts
    as observed, with missing values filled forward.
    """

    family = "toto2"
    multivariate, past_covariates, half = True, True, False
    upstream: Toto2Model
    module: Toto2Model

    def __init__(self, module: Toto2Model, config: Mapping[str, object], name: str, context: int) -> None:
        self.name, self.config, self.prefix_steps = name, dict(config), module.config.patch_size
        self.module = self.upstream = module.eval()
        self.anatomy = _anatomy(module)
        self.context_length = context

    @property
    def context_length(self) -> int:  # type: ignore[override]
        return self._context

    @context_length.setter
    def context_length(self, steps: int) -> None:
        self._context = steps // self.prefix_steps * self.prefix_steps
        self.readout_horizon = min(self._context, 1024)  # GIFT-Eval's longest is 900
        # one patch of the future; upstream cuts the context for further ones
        self.anatomy = self.anatomy.with_positions(self._context // self.prefix_steps + 1)

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int, covariates: int = 0) -> Forecast:
        found = self._predicted(series, horizon, covariates).numpy(force=True)
        rows = found.reshape(-1, horizon, len(LEVELS))
        return Forecast(np.ascontiguousarray(rows.transpose(0, 2, 1)), LEVELS)

    def _predicted(self, series: Sequence[NDArray[np.float32]], horizon: int, covariates: int) -> Tensor:
        """Upstream's quantiles, [B, H, Q] or [B, V, H, Q]."""
        if horizon > self.context_length:  # by which upstream cuts the context
            raise TspruneError(f"{self.name} forecasts at most {self.context_length:,} steps")
        rows = [np.atleast_2d(values) for values in series]
        targets = len(rows[0]) - covariates
        settings = Toto2GluonTSModelConfig(horizon, self.context_length, targets, covariates)
        model = Toto2GluonTSModel(self.module, settings)
        length = model.instance_splitter.past_length
        filled = [np.concatenate([ffill_imputation(x[:targets]), np.nan_to_num(x[targets:])]) for x in rows]
        values, known = _fitted(filled, length), _fitted([np.isfinite(x) for x in rows], length)
        padding = ~_fitted([np.ones(x.shape[-1], dtype=bool) for x in rows], length)
        given = {"past_target": values[:, :targets], "past_observed_target": known[:, :targets]}
        if covariates:
            given["past_feat_dynamic_real"] = values[:, targets:]
            given["past_observed_feat_dynamic_real"] = known[:, targets:]
        tensors = {name: torch.from_numpy(x).to(self.device) for name, x in given.items()}
        tensors["past_is_pad"] = torch.from_numpy(padding).to(self.device)
        with quick_scales():
            ((quantiles,), *_) = model(**tensors)
        return quantiles  # type: ignore[no-any-return]

    def _teacher_forced(self, series: list[NDArray[np.float32]], covariates: int = 0) -> Tensor:
        """Normalised quantiles of the patch after the contexts, [B, patch * Q], not sorted."""
        readout = self.module.get_submodule(_READOUT)
        output = first_output(readout, lambda: self._predicted(series, 1, covariates))
        return targets_of(output.flatten(0, -2), series, covariates)

    def _readout_of(
        self, left: list[Tensor], series: list[CheckedContext], count: int, horizon: int
    ) -> Tensor:
        parts = (x.reshape(-1, horizon, len(LEVELS)).transpose(1, 2) for x in left)
        return self._over_variates(
            series, lambda *_: next(parts), lambda found, order: torch.cat(found)[torch.from_numpy(order)]
        )

    def exact_gradients(self) -> AbstractContextManager[None]:
        return exact_gradients()

    def config_file(self) -> dict[str, Any]:
        return dict(self.config)

    def stored_metadata(self) -> dict[str, str]:
        return {"format": "pt", MAX_CONTEXT: str(self.context_length)}  # upstream looks for the first

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Heads can go where all sublayers keep as many, a divisor of the width."""
        stated, heads = self.module.config, self.anatomy.equal_heads
        key_heads = {site.key.heads for _, site in self.anatomy.sites()}
        layers = len(self.anatomy.stacks[0].blocks)
        if not heads or stated.d_model % heads or len(key_heads) > 1 or layers < stated.num_layers:
            return None
        widths = {"qk_dim": stated.qk_dim, "v_dim": stated.v_dim}
        groups = key_heads.pop()
        counts = {"num_heads": heads, "num_groups": groups, "heads_per_group": heads // groups}
        return {**config, **widths, **counts}

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Toto2:
        config = checkpoint.settings(_SIZES)
        module = Toto2Model(Toto2ModelConfig(**config))
        context = checkpoint.context_length(_CONTEXT, module.config.patch_size)
        return cls(module, config, checkpoint.name, context)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Toto2:
        """The model of a `Toto2Model` in memory, or of its predictor's network."""
        module = network(upstream, Toto2Model, Toto2GluonTSModel)
        context = getattr(getattr(upstream, "config", None), "context_length", _CONTEXT)
        return cls(module, dataclasses.asdict(module.config), name, context)


def _fitted(arrays: Sequence[NDArray[Any]], length: int) -> NDArray[Any]:
    """Arrays [..., T] as one, [B, ..., length]: their last steps, with zeros in front of shorter ones."""
    found = np.zeros((len(arrays), *arrays[0].shape[:-1], length), arrays[0].dtype)
    for row, values in zip(found, arrays, strict=True):
        last = values[..., -length:]
        row[..., length - last.shape[-1] :] = last
    return found
