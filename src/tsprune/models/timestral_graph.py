"""Timestral as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from typing import Any

import torch
from timestral.forecaster import replace_extreme_values
from timestral.scaler import clamp_nonfinite, denormalize_quantiles, welford_combine
from torch import Tensor, nn
from torch.nn import functional

from tsprune.models.alone_in_group import alone_in_groups
from tsprune.models.copies import network_copy
from tsprune.models.forecast import LEVELS
from tsprune.models.graph_ops import bounded, causal_mask
from tsprune.models.timestral import Timestral


class TimestralGraph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, horizon].

    As upstream's `TimestralForecaster.forecast`: the forecast of the negated series is averaged in. Beyond a
    pass, the medians of one continue the context of the next.
    """

    def __init__(self, model: Timestral, horizon: int) -> None:
        super().__init__()
        self.network: Any = network_copy(model.module)
        alone_in_groups(self.network, model.anatomy)
        upstream = model.upstream
        self.horizon, self.patch, self.block = horizon, upstream.patch_size, upstream.per_shot_horizon_patches
        self.longest = max(self.patch, upstream.max_context // self.patch * self.patch)
        self.reach, self.extreme = upstream.quantile_real_cap_k, upstream.extreme_value_threshold
        self.median = upstream.median_index
        self.chosen = [upstream.quantile_levels.index(level) for level in LEVELS]

    def forward(self, context: Tensor) -> Tensor:
        known, count = ~torch.isnan(context), context.shape[0]
        values = torch.where(known, context, 0.0)
        quantiles = self._forecast(torch.cat([values, -values]), torch.cat([known, known]))
        found = (quantiles[:count] - quantiles[count:].flip(-1)) / 2
        positive = (context >= 0).any(dim=1) & ~(context < 0).any(dim=1)
        found = torch.where(positive[:, None, None], found.clamp(min=0), found)
        return found[..., self.chosen].transpose(1, 2)

    def _forecast(self, values: Tensor, known: Tensor) -> Tensor:
        """Quantiles [B, horizon, Q] after [B, T], where 0 is missing."""
        given, steps = (values, known), list[Tensor]()
        _, _, scale = self.network.scale(*given)
        left = -(-self.horizon // self.patch)
        while left > 0:
            steps.append(self._pass(values, known, min(self.block, left)))
            left -= self.block
            more = replace_extreme_values(steps[-1][..., self.median], self.extreme)
            values = torch.cat([values, more], dim=1)
            known = torch.cat([known, torch.ones_like(more, dtype=torch.bool)], dim=1)
            place = torch.ones_like(values).flip(1).cumsum(dim=1).flip(1)
            known = known & (place <= self.longest)
        quantiles = torch.cat(steps, dim=1)[:, : self.horizon]
        return bounded(quantiles, *given, self.reach * scale[:, -1:, None]) if self.reach > 0 else quantiles

    def _pass(self, values: Tensor, known: Tensor, count: int) -> Tensor:
        """Quantiles [B, count * patch, Q] of the patches after [B, T]."""
        network, settings = self.network, self.network.config
        scaled, location, scale = network.scale(values, known)
        observed = known.unflatten(1, (-1, self.patch)).any(dim=-1)
        keys = observed.cumsum(dim=1) > 0 if settings.attend_missing_patches else observed
        queries = network.representation.forecast_tokens(values.shape[0], count)
        inputs = torch.cat([network.representation(scaled, known), queries], dim=1)
        place = torch.arange(inputs.shape[1]) - observed.to(torch.float32).argmax(dim=1, keepdim=True)
        mask = causal_mask(functional.pad(keys, (0, count), value=True))
        hidden = network.head(network.transformer(inputs, mask, None, place)[:, -count:])
        frame = location[:, -1:, None], scale[:, -1:, None]
        found: Tensor = denormalize_quantiles(hidden, *frame, settings.use_asinh)
        return found if count == 1 else self._refined(found, *frame, values, known)

    def _refined(
        self, quantiles: Tensor, location: Tensor, scale: Tensor, values: Tensor, known: Tensor
    ) -> Tensor:
        """Quantiles scaled again, each patch by what is known and the medians of the patches before it."""
        medians = (quantiles[..., self.median].double() - location[..., 0]) / scale[..., 0]
        frames = self._frames(medians.unflatten(1, (-1, self.patch)), values.double(), known.double())
        frames[0] = location[:, 0], scale[:, 0]
        locations, scales = (
            torch.stack([one.to(values.dtype) for one in parts], dim=1)[..., None]
            for parts in zip(*frames, strict=True)
        )
        normed = ((quantiles - location) / scale).unflatten(1, (-1, self.patch))
        refined: Tensor = clamp_nonfinite(normed * scales + locations)
        return refined.flatten(1, 2)

    def _frames(self, medians: Tensor, values: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Location and scale [B, 1] of each patch, of which `medians` [B, N, patch] are normalised."""
        count = weight.sum(dim=1, keepdim=True)
        center = mean = (values * weight).sum(dim=1, keepdim=True) / count.clamp(min=1)
        squares = (weight * (values - mean).square()).sum(dim=1, keepdim=True)
        clip, frames = torch.finfo(torch.float32).max ** 0.5 / 1e3, []
        for normed in medians.unbind(dim=1):
            scale = (squares / (count - 1).clamp(min=1)).sqrt().clamp(min=self.network.config.minimum_scale)
            frames.append((mean, scale))
            more = (normed * scale + mean - center).clamp(-clip, clip) + center
            its_mean = more.mean(dim=1, keepdim=True)
            its_squares = (more - its_mean).square().sum(dim=1, keepdim=True)
            its_count = torch.full_like(count, self.patch)
            count, mean, squares = welford_combine(count, mean, squares, its_count, its_mean, its_squares)
        return frames
