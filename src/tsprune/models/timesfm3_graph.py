"""TimesFM 3 as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from typing import Any

import torch
from timesfm3.torch.transformer import MultiHeadAttention
from timesfm3.torch.util import revin, update_running_stats
from torch import Tensor, nn
from torch.nn import functional

from tsprune.models.alone_in_group import alone_in_groups
from tsprune.models.copies import network_copy
from tsprune.models.forecast import LEVELS
from tsprune.models.graph_ops import causal_mask, running_moments, without_gaps
from tsprune.models.timesfm3 import TimesFM3

_Pair = tuple[Tensor, Tensor]


class _Attention(nn.Module):
    """Upstream's attention in one call, without the count of masked patches, which ONNX cannot express."""

    def __init__(self, attention: MultiHeadAttention) -> None:
        super().__init__()
        self.inner: Any = attention

    def forward(
        self, hidden: Tensor, *, patch_mask: Tensor, segment_pos: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None, None]:
        inner = self.inner
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, inner.head_dim))
            for projection in (inner.query_proj, inner.key_proj, inner.value_proj)
        )
        if inner.rotary_position_embedding is not None and segment_pos is not None:
            query, key = (inner.rotary_position_embedding(x, segment_pos) for x in (query, key))
        if inner.query_ln is not None:
            query, key = inner.query_ln(query), inner.key_ln(key)
        if inner.per_dim_scale is not None:
            query = inner.per_dim_scale(query)
        if inner.value_ln is not None:
            value = inner.value_ln(value)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=causal_mask(~patch_mask),
            scale=1.0 if inner.rescale_logits else inner.head_dim**0.5,
        )
        return inner.out_proj(mixed.transpose(1, 2).flatten(2)), None, None


class TimesFM3Graph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, horizon].

    As upstream's `TimesFM3Evaluator.predict_batch`: the forecast of the negated series is averaged in, gaps
    are filled, and a trend is taken out if that halves the deviation.

    Beyond one output patch, upstream mixes the patches where they overlap, the last one excepted. A graph of
    such a horizon has a second input of P numbers: the last one is that of P * `future_span` steps.
    """

    def __init__(self, model: TimesFM3, horizon: int) -> None:
        super().__init__()
        self.network: Any = network_copy(model.module)
        if model.module.transformer_config.transformer.v_norm == "none":
            alone_in_groups(self.network, model.anatomy, lambda output: (output, None, None))
        for path, part in list(self.network.named_modules()):
            if isinstance(part, MultiHeadAttention):
                self.network.set_submodule(path, _Attention(part))
        self.patch, self.steps = model.module.input_patch_len, model.module.output_patch_len
        self.horizon = -(-horizon // self.steps) * self.steps
        self.future_span = self.steps if horizon > self.steps and model.module.use_stitching else 0
        self.longest = -(-model.context_length // self.patch) * self.patch
        self.chosen = [model.module.quantiles.index(level) for level in LEVELS]

    def forward(self, context: Tensor, future: Tensor | None = None) -> Tensor:
        series, front = without_gaps(context, self.longest)
        count = context.shape[0]
        found = self._forecast(torch.cat([series, -series]), torch.cat([front, front]), future)
        found = found.sort(dim=-1).values
        found = (found[:count] - found[count:].flip(-1)) / 2
        positive = (context >= 0).any(dim=1) & ~(context < 0).any(dim=1)
        found = torch.where(positive[:, None, None], found.clamp(min=0), found)
        return found[..., self.chosen].transpose(1, 2)

    def _forecast(self, series: Tensor, front: Tensor, future: Tensor | None) -> Tensor:
        """The network's quantiles [B, H, Q] after [B, T]."""
        slope, level = self._trend(series, front)
        length = series.shape[1]
        time = torch.arange(1 - length, 1, dtype=torch.float32) / length
        series = torch.where(front, 0.0, series - (slope * time + level))
        limit = self.network.value_clip
        patches = series.clamp(-limit, limit).unflatten(1, (-1, self.patch))
        masks = front.unflatten(1, (-1, self.patch))
        rolls = self.steps // self.patch
        apart = 1 if self.network.use_stitching else rolls  # patches from one output to the next
        more = self.horizon // self.patch - (2 if self.network.use_stitching else rolls)
        mean, deviation = running_moments(patches, masks)
        logits = self._logits(patches, masks, mean, deviation, more)
        known = (~front).to(series.dtype).sum(dim=1)
        frames = self._frames(logits, known, mean[:, -1], deviation[:, -1])
        located = revin(logits, *frames, reverse=True).clamp(-limit, limit)
        found = located.unflatten(-1, (self.steps, -1))[:, ::apart]
        found = self._stitched(found, future) if self.network.use_stitching else found.flatten(1, 2)
        time = torch.arange(1, self.horizon + 1) / length
        return found[:, : self.horizon] + (slope * time + level)[..., None]

    def _trend(self, series: Tensor, front: Tensor) -> _Pair:
        """Slope, by the length of the context, and level [B, 1]: 0 where the trend is not taken out."""
        known = (~front).to(series.dtype)
        count = known.sum(dim=1, keepdim=True)
        time = torch.arange(1 - series.shape[1], 1, dtype=torch.float32) / series.shape[1] * known
        total_time, total = time.sum(dim=1, keepdim=True), series.sum(dim=1, keepdim=True)
        spread = count * time.square().sum(dim=1, keepdim=True) - total_time.square()
        slope = count * (time * series).sum(dim=1, keepdim=True) - total_time * total
        slope = torch.where(spread == 0, 0.0, slope / torch.where(spread == 0, 1.0, spread))
        level = (total - slope * total_time) / count
        without = torch.where(front, 0.0, series - (slope * time + level))
        threshold = self.network.linear_detrending_threshold
        better = _deviation(without, count) < threshold * _deviation(series, count)
        better = better & bool(self.network.use_linear_detrending)
        return torch.where(better, slope, 0.0), torch.where(better, level, 0.0)

    def _logits(self, patches: Tensor, masks: Tensor, mean: Tensor, deviation: Tensor, more: int) -> Tensor:
        """The output head's [B, 1 + more, steps * Q] of the last patch and so many unknown ones."""
        network = self.network
        normed = torch.where(masks, 0.0, revin(patches, mean, deviation))
        normed = functional.pad(normed, (0, self.steps, 0, more))
        unknown = functional.pad(masks.to(patches.dtype), (0, self.steps, 0, more), value=1.0)
        inputs = network.pre_transformer_resblock(torch.cat([normed, unknown], dim=-1))
        begun = functional.pad((~masks).any(dim=-1), (0, more)).cumsum(dim=1) > 0
        # positions count from the first known patch, since the norms after the rotation make them absolute
        place = begun.cumsum(dim=1) - 1
        hidden, _, _ = network.transformer_stack(inputs[:, None], ~begun[:, None], segment_pos=place)
        return network.output_head(hidden[:, 0, -1 - more :])  # type: ignore[no-any-return]

    def _frames(self, logits: Tensor, known: Tensor, mean: Tensor, deviation: Tensor) -> _Pair:
        """Mean and deviation [B, N] of the outputs: each one's includes the medians of those before it."""
        network, frames = self.network, []
        medians = logits.unflatten(-1, (-1, self.patch, network.num_quantiles))
        medians = medians[..., network.num_quantiles // 2]
        limit, rolls = network.value_clip, self.steps // self.patch
        state, anchor = (known, mean, deviation), medians[:, 0]
        for number in range(medians.shape[1]):
            if number and network.use_iterative_cpm_revin:
                values = anchor[:, (number - 1) % rolls]
                state = update_running_stats(*state, values, torch.zeros_like(values, dtype=torch.bool))
            if number % rolls == 0:
                anchor = revin(medians[:, number], *state[1:], reverse=True).clamp(-limit, limit)
            frames.append(state[1:])
        located, scaled = (torch.stack(parts, dim=1) for parts in zip(*frames, strict=True))
        return located, scaled

    def _stitched(self, found: Tensor, future: Tensor | None) -> Tensor:
        """Output patches [B, N, steps, Q] as steps [B, H, Q], mixed where two of them overlap."""
        first, second = found[:, :, : self.patch], found[:, :, self.patch : 2 * self.patch]
        weight = torch.linspace(1, 0, self.patch)[:, None]
        mixed = weight * second[:, :-1] + (1 - weight) * first[:, 1:]
        if future is not None:
            last = torch.ones_like(future).sum() * (self.steps // self.patch) - 1
            place = torch.arange(1, found.shape[1])[:, None, None]
            mixed = torch.where(place == last, second[:, :-1], mixed)
        return torch.cat([first[:, :1], mixed, second[:, -1:]], dim=1).flatten(1, 2)


def _deviation(series: Tensor, count: Tensor) -> Tensor:
    """The deviation [B, 1] of so many values of [B, T], whose others are 0."""
    mean = series.sum(dim=1, keepdim=True) / count
    return (series.square().sum(dim=1, keepdim=True) / count - mean.square()).clamp(min=0).sqrt()
