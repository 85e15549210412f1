"""Toto 2.0 as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from toto2 import Toto2GluonTSModelConfig
from toto2.model import backfill_short_patches

from tsprune.models.alone_in_group import alone_in_groups
from tsprune.models.copies import network_copy
from tsprune.models.graph_ops import bounded, filled_forward, require_one_pass
from tsprune.models.toto2 import Toto2
from tsprune.models.unit_scaling import exact_gradients, use_plain_layers


class Toto2Graph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, P * future_span].

    As upstream's `Toto2GluonTSModel`: missing values are filled forward, the last patch counts as observed,
    and the future's P patches take the place of the context's first ones. The second input is any array of P
    numbers.

    Raises TspruneError for a horizon of more than one pass.
    """

    def __init__(self, model: Toto2, horizon: int) -> None:
        super().__init__()
        require_one_pass(model, horizon)
        self.network: Any = network_copy(model.module)
        use_plain_layers(self.network)
        alone_in_groups(self.network, model.anatomy)
        self.settings = Toto2GluonTSModelConfig(horizon, model.context_length, 1)
        self.longest, self.future_span = model.context_length, model.module.config.patch_size

    def forward(self, context: Tensor, future: Tensor) -> Tensor:
        patch, network, count = self.future_span, self.network, future.shape[0]
        left = torch.ones_like(context).flip(1).cumsum(dim=1).flip(1) + patch * torch.ones_like(future).sum()
        known = ~torch.isnan(context[:, :-patch]) & (left[:, :-patch] <= self.longest + patch)
        known = functional.pad(known, (0, patch), value=True)
        more = (0, patch * count)
        seen = functional.pad(known, more)
        values = functional.pad(torch.where(known, filled_forward(context, self.longest), 0.0), more)
        _, location, scale = network.scaler(values, seen)
        least, bound = self.settings.scaler_fallback_min_obs, self.settings.quantile_real_cap_k
        location, scale = backfill_short_patches(values, location, scale, seen, patch, least)
        scaled = torch.where(seen, (values - location) / scale, 0.0).asinh()
        groups = (
            functional.pad(known.unflatten(1, (-1, patch)).any(dim=-1), (0, count), value=True).long() - 1
        )
        with exact_gradients():
            inputs = network._embed_patches(scaled, seen, patch)
            place = torch.arange(
                groups.shape[1]
            )  # upstream's is of 32 bits, with which ONNX looks nothing up
            hidden = network.transformer(inputs[:, None], place, groups[:, None])[:, 0]
            found = network.output_head(hidden[:, -1 - count : -1], None)  # [Q, B, P, patch]
        location, scale = location[:, -1:, None], scale[:, -1:, None]
        found = network._clamp_nonfinite(found.sinh() * scale + location)
        found = bounded(found, values[:, : -more[1]], known, bound * scale)
        return found.sort(dim=0).values.movedim(0, 1).flatten(2)
