"""Moirai-2 as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from uni2ts.module.attention import GroupedQueryAttention
from uni2ts.module.packed_scaler import PackedStdScaler
from uni2ts.module.position import RotaryProjection

from tsprune.models.copies import network_copy
from tsprune.models.graph_ops import empirical_quantiles
from tsprune.models.moirai2 import Moirai2


class _OfOneVariate(nn.Module):
    """Upstream's attention among the patches of one variate, in products of matrices, which ONNX has."""

    def __init__(self, attention: GroupedQueryAttention) -> None:
        super().__init__()
        self.inner: Any = attention

    def forward(
        self, hidden: Tensor, *_: Tensor, attn_mask: Tensor, query_time_id: Tensor, **__: Any
    ) -> Tensor:
        inner, time = self.inner, query_time_id[:, None, None]
        query, key, value = (
            projection(hidden).unflatten(-1, (inner.num_groups, -1, inner.head_dim)).movedim(1, 3)
            for projection in (inner.q_proj, inner.k_proj, inner.v_proj)
        )
        query, key = inner.time_qk_proj(inner.q_norm(query), inner.k_norm(key), query_id=time, kv_id=time)
        same = inner.var_attn_bias.emb.weight[1].unflatten(0, (inner.num_groups, -1))[..., None, None]
        logits = query @ key.transpose(-1, -2) * inner.softmax_scale + same
        weights = torch.where(attn_mask[:, None, None], logits, -torch.inf).softmax(dim=-1)
        output: Tensor = inner.out_proj((weights @ value).movedim(3, 1).flatten(2))
        return output


def attend_within_a_variate(network: Any, tokens: int) -> None:
    """Makes the encoder of `network` ready for a graph of up to so many tokens of one variate."""
    for module in network.modules():
        if isinstance(module, RotaryProjection):
            module._init_freq(max_len=tokens)
            module._init_freq = _nothing
    for layer in network.encoder.layers:
        if isinstance(layer.self_attn, GroupedQueryAttention):
            layer.self_attn = _OfOneVariate(layer.self_attn)


class Moirai2Graph(nn.Module):
    """Contexts [B, T], NaN where a value is missing and infinite before a series begins, to [B, Q, horizon].

    As upstream's `Moirai2Forecast.predict`: a missing value is 0 and not observed, and the rest of the first
    patch is filled with the first value, as observed as that. Patches of the future are not seen by those of
    the context, so they are left out until they are known.

    Beyond a pass, as upstream: every level continues the context by itself, and the quantiles of their
    quantiles are the next steps.
    """

    marks_padding = True

    def __init__(self, model: Moirai2, horizon: int) -> None:
        super().__init__()
        self.network: Any = network_copy(model.module)
        self.horizon, self.patch = horizon, self.network.patch_size
        tokens = -(-model.context_length // self.patch) - (-horizon // self.patch)
        attend_within_a_variate(self.network, tokens + self.network.num_predict_token)
        self.scales = isinstance(self.network.scaler, PackedStdScaler)
        self.levels = model.levels

    def forward(self, context: Tensor) -> Tensor:
        begun = ~torch.isinf(context)
        known = begun & ~torch.isnan(context)
        first = (context.shape[1] - begun.sum(dim=1, keepdim=True)).clamp(max=context.shape[1] - 1)
        values = torch.where(known, context, 0.0)
        values = torch.where(begun, values, torch.gather(values, 1, first))
        observed = known | (~begun & (torch.gather(known.float(), 1, first) > 0))
        target, seen = values.unflatten(1, (-1, self.patch)), observed.unflatten(1, (-1, self.patch))
        sample = begun.unflatten(1, (-1, self.patch)).any(dim=-1)
        step = self._next(target, seen, sample)
        steps = [step]
        paths = len(self.levels)
        target, seen, sample = (
            x[:, None].expand(-1, paths, *x.shape[1:]).flatten(0, 1) for x in (target, seen, sample)
        )
        for _ in range(-(-self.horizon // step.shape[-1]) - 1):
            more = step.flatten(0, 1).unflatten(1, (-1, self.patch))
            target = torch.cat([target, more], dim=1)
            seen = torch.cat([seen, torch.ones_like(more, dtype=torch.bool)], dim=1)
            sample = torch.cat([sample, torch.ones_like(more[..., 0], dtype=torch.bool)], dim=1)
            drawn = self._next(target, seen, sample)
            step = empirical_quantiles(drawn.unflatten(0, (-1, paths)).flatten(1, 2), self.levels)
            steps.append(step)
        return torch.cat(steps, dim=-1)[..., : self.horizon]

    def _next(self, target: Tensor, seen: Tensor, sample: Tensor) -> Tensor:
        """Quantiles [B, Q, steps of a pass] after patches [B, N, P], of which those of `sample` are real."""
        location, scale = self._scaled(target, seen & sample[..., None])
        place = torch.where(sample[..., None], location, 0.0), torch.where(sample[..., None], scale, 1.0)
        inputs = torch.cat([(target - place[0]) / place[1], seen.to(target.dtype)], dim=-1)
        begun = seen.any(dim=-1).to(torch.int64).cumsum(dim=1) > 0
        time = (begun.to(torch.int64).cumsum(dim=1) - 1).clamp(min=0)
        mask = (sample[:, None] == sample[:, :, None]) & (time[:, None] <= time[:, :, None])
        hidden = self.network.encoder(
            self.network.in_proj(inputs), mask, time_id=time, var_id=torch.zeros_like(time)
        )
        output = self.network.out_proj(hidden[:, -1]) * scale[:, 0] + location[:, 0]
        shape = (self.network.num_predict_token, self.network.num_quantiles, self.patch)
        found: Tensor = output.unflatten(1, shape).transpose(1, 2).flatten(2)
        return found

    def _scaled(self, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale [B, 1, 1] of the values that count, in double precision."""
        if not self.scales:
            return torch.zeros_like(target[:, :1, :1]), torch.ones_like(target[:, :1, :1])
        weight, exact = counted.to(torch.float64), target.to(torch.float64)
        scaler = self.network.scaler
        count = weight.sum(dim=(1, 2), keepdim=True)
        location = (exact * weight).sum(dim=(1, 2), keepdim=True) / _safe(count)
        variance = ((exact - location).square() * weight).sum(dim=(1, 2), keepdim=True)
        variance = variance / _safe(count - scaler.correction)
        return location.to(target.dtype), (variance + scaler.minimum_scale).sqrt().to(target.dtype)


def _safe(count: Tensor) -> Tensor:
    return torch.where(count == 0, 1.0, count)


def _nothing(max_len: object) -> None:
    """In place of tables of rotations that grow with the sequence: they are made for the longest one."""
