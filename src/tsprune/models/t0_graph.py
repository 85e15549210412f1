"""t0 as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from typing import Any

import torch
from t0.levels import get_rollout_quantile_levels
from t0.quantile import extrapolate_quantiles, interpolate_quantiles
from torch import Tensor, nn
from torch.nn import functional

from tsprune.models.alone_in_group import alone_in_groups
from tsprune.models.copies import network_copy
from tsprune.models.forecast import LEVELS
from tsprune.models.graph_ops import causal_mask, causal_moments, require_one_pass, without_gaps
from tsprune.models.t0 import T0


class T0Graph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, P * future_span].

    Upstream's settings are those of `T0`: missing values in front are padding, and the forecast of the
    negated series, without gaps, is averaged in. The second input is any array of P numbers.

    Raises TspruneError for a horizon of more than one pass.
    """

    def __init__(self, model: T0, horizon: int) -> None:
        super().__init__()
        require_one_pass(model, horizon)
        self.network: Any = network_copy(model.module)
        alone_in_groups(self.network, model.anatomy)
        self.future_span = self.network.patch_size
        self.longest = -(-model.context_length // self.future_span) * self.future_span

    def forward(self, context: Tensor, future: Tensor) -> Tensor:
        known = ~torch.isnan(context)
        filled, front = without_gaps(context, self.longest)
        values = torch.where(known, context, 0.0)
        both = torch.cat([values, -filled]), torch.cat([known, ~front]), torch.cat([front, front])
        quantiles, count = self._pass(*both, future), context.shape[0]
        direct, mirrored = quantiles[:count], quantiles[count:]
        least = torch.where(known, context, torch.inf).amin(dim=1)[:, None, None]
        whole = (~known | (context == context.round())).all(dim=1)[:, None, None]
        found = torch.where(least == 0, direct, (direct - mirrored.flip(-1)) / 2)
        found = torch.where(least >= 0, found.clamp(min=0), found)
        return torch.where(whole, found.round(), found).transpose(1, 2)

    def _pass(self, values: Tensor, known: Tensor, front: Tensor, future: Tensor) -> Tensor:
        """Quantiles [B, H, Q] after [B, T], where 0 is missing and what is in `front` is padding."""
        network, patch = self.network, self.future_span
        mean, variance = causal_moments(values, known)
        scale = self._scale(variance)
        more = (0, patch * future.shape[0])  # steps whose statistics are those of the last known one
        location = torch.cat([mean, mean[:, -1:].expand(-1, more[1])], dim=1)
        width = torch.cat([scale, scale[:, -1:].expand(-1, more[1])], dim=1)
        scaled = (functional.pad(values, more) - location) / width
        scaled = scaled.asinh() if network.scaler.use_arcsinh else scaled
        seen = functional.pad(known, more)
        if network.scaler.zero_no_value:
            scaled = torch.where(seen, scaled, 0.0)
        inputs = [x.unflatten(1, (-1, patch)) for x in (scaled, seen.to(scaled.dtype))]
        place = (torch.arange(patch) / patch).expand_as(inputs[0])
        encoder = network.patch_encoder
        hidden = encoder.projection(torch.cat([inputs[0], place, inputs[1]], dim=-1))
        hidden = hidden + encoder.type_embeddings.weight[0]
        keys = functional.pad(~front, more, value=True).unflatten(1, (-1, patch)).any(dim=-1)
        mask = causal_mask(keys)
        for layer in network.transformer.layers:
            hidden = layer(hidden, mask, mask)
        found = network.decoder(network.transformer.out_norm(hidden[:, -1 - future.shape[0] : -1]))
        found = network.head(found.unflatten(-1, (patch, -1))).flatten(1, 2)
        found = found.sinh() if network.scaler.use_arcsinh else found
        return self._at_levels(found * scale[:, -1:, None] + mean[:, -1:, None])

    def _scale(self, variance: Tensor) -> Tensor:
        least = float(self.network.scaler.eps)
        if self.network.scaler.eps_mode == "variance_offset":
            return (variance + least).sqrt()
        return variance.sqrt().clamp(min=least)

    def _at_levels(self, quantiles: Tensor) -> Tensor:
        """Quantiles at `LEVELS`, from those of the levels that the network has."""
        trained = self.network.config.quantile_levels
        levels = get_rollout_quantile_levels(trained, LEVELS)
        found = interpolate_quantiles(levels, trained, quantiles)
        found = torch.where(found.isfinite(), found, 0.0)
        return extrapolate_quantiles(LEVELS, levels, found, trained)  # type: ignore[no-any-return]
