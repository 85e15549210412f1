"""Chronos-2: encoder over patches of history and future, attending over time and over groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.layers import AttentionOutput
from chronos.chronos2.model import Chronos2Model
from chronos.chronos2.pipeline import Chronos2Pipeline
from chronos.chronos2.preprocess import PreparedInput, from_data_frame
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Readout, Size, Stack, TimeAxis
from tsprune.errors import one_line
from tsprune.models import pretrained
from tsprune.models.absent import AbsentAttention
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.contexts import CovariateContext, padded
from tsprune.models.forecaster import LEVELS, Forecast
from tsprune.models.predict_df import FrameError, LongTable
from tsprune.models.stated import flag, or_none, real, whole_number
from tsprune.models.variates import rows_of, targets_of, variates_in

if TYPE_CHECKING:
    import pandas as pd

_SETTINGS = {  # of chronos_config in config.json
    **pretrained.PATCHED,
    **dict.fromkeys(("output_patch_size", "max_output_patches"), whole_number()),
    "use_arcsinh": flag,
    "time_encoding_scale": or_none(whole_number()),
}


def _attention(role: str, layer: str, config: Chronos2CoreConfig) -> AttentionSite:
    module = f"{layer}.self_attention"
    # group attention runs over the batch: its projections see [time, batch, features]
    across = role == "group"
    return AttentionSite.of_layers(
        role,
        module,
        "qkvo",
        config.num_heads,
        config.d_kv,
        axis="series" if across else "time",
        swapped=across,
        others=(f"{layer}.layer_norm",),
        sizes=(Size(module, "n_heads", "heads"), Size(module, "inner_dim", "width")),
    )


def _anatomy(config: Chronos2CoreConfig) -> Anatomy:
    blocks = []
    for index in range(config.num_layers):
        path = f"encoder.block.{index}"
        layers = [f"{path}.layer.{place}" for place in range(3)]
        sites = _attention("time", layers[0], config), _attention("group", layers[1], config)
        blocks.append(Block(path, sites, MLPSite(f"{layers[2]}.mlp", (f"{layers[2]}.layer_norm",))))
    settings = config.chronos_config
    axis = TimeAxis(settings["input_patch_size"], marks=int(settings["use_reg_token"]), future=1)
    readout = Readout(("output_patch_embedding",), "encoder.final_layer_norm")
    stack = Stack("stack", tuple(blocks), module="encoder", time=axis)
    return Anatomy((stack,), config.d_model, readout=readout)


def _with_covariates(rows: Tensor, covariates: int, horizon: int) -> PreparedInput:
    """Upstream's input of which the last `covariates` rows of [V + C, T] are known in the past alone."""
    return PreparedInput(
        context=rows,
        future_covariates=torch.full((len(rows), horizon), torch.nan),
        n_targets=len(rows) - covariates,
        n_covariates=covariates,
        n_future_covariates=0,
    )


class AbsentChronos2Attention(AbsentAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return AttentionOutput(hidden_states=self.contribution(args[0]))


class Chronos2(pretrained.PretrainedForecaster):
    """`upstream` is the `Chronos2Pipeline`; every context is a group of its own."""

    family = "chronos2"
    absent = AbsentChronos2Attention
    multivariate = True
    past_covariates = True
    reference_horizon = 1024  # GIFT-Eval's longest is 900
    upstream: Chronos2Pipeline
    module: Chronos2Model

    def __init__(self, model: Chronos2Model, name: str) -> None:
        self.name = name
        self.module = model.eval()
        self.upstream = Chronos2Pipeline(model)
        self.anatomy = _anatomy(model.config)
        self.context_length = model.chronos_config.context_length
        patch, most = model.chronos_config.output_patch_size, model.chronos_config.max_output_patches
        self.readout_horizon = patch * most

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int, covariates: int = 0) -> Forecast:
        visible: list[Any] = [torch.from_numpy(x[..., -self.context_length :]) for x in series]
        if covariates:
            visible = [_with_covariates(rows, covariates, horizon) for rows in visible]
        # upstream's data loader draws a seed
        with pretrained.quiet_horizon(), torch.random.fork_rng(devices=[]):
            quantiles, _ = self.upstream.predict_quantiles(
                visible,
                prediction_length=horizon,
                quantile_levels=list(LEVELS),
                batch_size=len(rows_of(series)),
            )
        stacked = torch.cat(quantiles)  # [B, H, Q]
        return Forecast(np.ascontiguousarray(stacked.transpose(1, 2).float().numpy()), LEVELS)

    def _teacher_forced(self, series: list[NDArray[np.float32]], covariates: int = 0) -> Tensor:
        """Normalised quantiles of the first output patch, [B, Q * output_patch_size]."""
        contexts = torch.from_numpy(padded([x[-self.context_length :] for x in rows_of(series)]))
        groups = torch.arange(len(series)).repeat_interleave(variates_in(series[0]))
        encoded, *_ = self.module.encode(
            contexts.to(self.device), group_ids=groups.to(self.device), num_output_patches=1
        )
        output: Tensor = self.module.output_patch_embedding(encoded[0][:, -1])
        return targets_of(output, series, covariates)

    def _with_covariates(
        self, table: LongTable, df: pd.DataFrame, names: tuple[str, str], targets: Sequence[str]
    ) -> LongTable:
        """All other columns, with categories as upstream encodes them."""
        if set(df.columns) <= {*names, *targets}:
            return table
        try:
            prepared = from_data_frame(df, list(targets), 1, id_column=names[0], timestamp_column=names[1])
        except (ValueError, TypeError) as error:
            raise FrameError(one_line(error, 200)) from None
        cut = len(targets)
        values = [CovariateContext(x["context"][:cut], x["context"][cut:]) for x in prepared]
        return dataclasses.replace(table, values=values)

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go, and heads where all sublayers keep as many."""
        heads = self.anatomy.equal_heads
        if heads is None:
            return None
        return {**config, "num_layers": len(self.anatomy.stacks[0].blocks), "num_heads": heads}

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Chronos2:
        stated = pretrained.hub_config(checkpoint, {"rope_theta": real(1e-6, 1e12)}, _SETTINGS)
        model = pretrained.quietly(lambda: Chronos2Model(Chronos2CoreConfig.from_dict(stated)))
        pretrained.check_tokens(model, start=False)
        return cls(model, checkpoint.name)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Chronos2:
        """The model of a `Chronos2Pipeline` or its network in memory."""
        return pretrained.adopted(cls, upstream, name, Chronos2Pipeline, Chronos2Model)
