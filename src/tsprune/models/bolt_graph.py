"""Chronos-Bolt as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.t5.modeling_t5 import T5Attention

from tsprune.models.chronos_bolt import ChronosBolt
from tsprune.models.copies import network_copy
from tsprune.models.graph_ops import empirical_quantiles
from tsprune.models.t5 import attend_plainly


def _attend_from_one_token(decoder: nn.Module) -> None:
    """Replaces the attention of a decoder that reads one token by what is left of it there."""
    for path, part in list(decoder.named_modules()):
        if isinstance(part, T5Attention):
            one = _OneTokenSelf if path.endswith("SelfAttention") else _OneTokenCross
            decoder.set_submodule(path, one(part))


class _OneTokenSelf(nn.Module):
    """Attention of a token to itself alone: its weight is 1, so queries and keys do not matter."""

    def __init__(self, attention: T5Attention) -> None:
        super().__init__()
        self.v, self.o = attention.v, attention.o

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None, None]:
        """Hidden states [B, 1, d_model] to the sublayer's output, without position bias and weights."""
        return self.o(self.v(hidden_states)), None, None


class _OneTokenCross(nn.Module):
    """Attention of one token to the encoder, whose keys and values are never made.

    A product of a query and a key q . (K x) is that of (K^T q) and x, and the mean of values V x is V times
    the mean of x: a product for each head, in place of one for each position of the encoder.
    """

    def __init__(self, attention: T5Attention) -> None:
        super().__init__()
        self.q, self.o = attention.q, attention.o
        size = attention.key_value_proj_dim
        keys, values = (x.weight.detach().unflatten(0, (-1, size)) for x in (attention.k, attention.v))
        self.keys = nn.Parameter(keys)  # [heads, head_dim, d_model]
        self.values = nn.Parameter(values.transpose(1, 2).contiguous())  # [heads, d_model, head_dim]

    def forward(
        self, hidden_states: Tensor, *, mask: Tensor | None, key_value_states: Tensor, **_: Any
    ) -> tuple[Tensor, None, None]:
        """Hidden states [B, 1, d_model] and the encoder's [B, T, d_model] to the sublayer's output."""
        heads, size = self.keys.shape[:2]
        queries = self.q(hidden_states).view(-1, heads, size).transpose(0, 1)  # [heads, B, head_dim]
        wanted = (queries @ self.keys).transpose(0, 1)  # [B, heads, d_model]
        scores = wanted @ key_value_states.transpose(1, 2)
        if mask is not None:
            scores = scores + mask[:, 0]
        means = scores.softmax(dim=-1) @ key_value_states
        found = (means.transpose(0, 1) @ self.values).transpose(0, 1)  # [B, heads, head_dim]
        return self.o(found.reshape(-1, 1, heads * size)), None, None


class BoltGraph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, horizon].

    Beyond a pass, as in upstream's `ChronosBoltPipeline.predict`: every level continues the context by
    itself, and the quantiles of their quantiles are the next steps.
    """

    def __init__(self, model: ChronosBolt, horizon: int) -> None:
        super().__init__()
        self.network = network_copy(model.module)
        attend_plainly(self.network)
        _attend_from_one_token(self.network.decoder)
        self.horizon = horizon
        patch = self.network.chronos_config.input_patch_size
        self.longest = -(-model.context_length // patch) * patch
        self.network.chronos_config.context_length = self.longest  # whole patches are not cut
        self.levels = model.levels

    def forward(self, context: Tensor) -> Tensor:
        step = self.network(context=context).quantile_preds
        steps = [step]
        longest, paths = self.longest, len(self.levels)
        # missing values in front, which are masked, make the length of every later pass a number
        context = functional.pad(context, (longest - context.shape[1], 0), value=torch.nan)
        path = context[:, None].expand(-1, paths, -1)
        for _ in range(-(-self.horizon // step.shape[-1]) - 1):
            path = torch.cat([path, step], dim=-1)[..., -longest:]
            drawn = self.network(context=path.flatten(0, 1)).quantile_preds
            step = empirical_quantiles(drawn.unflatten(0, (-1, paths)).flatten(1, 2), self.levels)
            steps.append(step)
        return torch.cat(steps, dim=-1)[..., : self.horizon]
