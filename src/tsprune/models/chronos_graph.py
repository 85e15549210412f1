"""Chronos-T5 as two graphs, for export: the encoder, and one step of the decoder for all paths."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from tsprune.arguments import SAMPLES
from tsprune.models.chronos import Chronos
from tsprune.models.chronos_decoding import token_sampling
from tsprune.models.graph_ops import MOST_ROWS
from tsprune.models.graph_program import GraphInput, GraphProgram
from tsprune.models.t5 import AbsentT5Attention, attend_plainly


class ChronosGraph(nn.Module):
    """The encoder: tokens [B, T] and which are observed, bool [B, T], to keys and values of cross-attention.

    They are [B, H, T, head_dim] each, H heads of all layers one after the other. `step` is the other graph.

    Raises TspruneError for a model that samples in other ways than with a temperature and `top_k`.
    """

    def __init__(self, model: Chronos, horizon: int | None) -> None:
        super().__init__()
        self.network: Any = copy.deepcopy(model.module)
        attend_plainly(self.network)
        self.step = DecoderStep(self.network, model.upstream.model.config.prediction_length)
        self.sampling = token_sampling(model, self.step.heads)

    def forward(self, tokens: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.network.encoder(input_ids=tokens, attention_mask=observed.to(torch.int64))
        hidden = hidden.last_hidden_state
        crossing = [layer.layer[1].EncDecAttention for layer in self.network.decoder.block]
        sites = [site for site in crossing if not isinstance(site, AbsentT5Attention)]
        dim = self.network.config.d_kv
        keys, values = (
            torch.cat([getattr(site, name)(hidden).unflatten(-1, (-1, dim)) for site in sites], dim=2)
            for name in ("k", "v")
        )
        return keys.transpose(1, 2), values.transpose(1, 2)

    def programs(self, length: int) -> tuple[GraphProgram, ...]:
        """The graphs, for histories of up to `length` steps."""
        how = self.sampling
        limits = {"batch": (1, MOST_ROWS), "samples": (1, SAMPLES), "length": (2, length + 1)}
        tokens = GraphInput(torch.ones(2, 5, dtype=torch.int64), {0: "batch", 1: "length"})
        observed = GraphInput(torch.ones(2, 5, dtype=torch.bool), {0: "batch", 1: "length"})
        crossing = [
            GraphInput(x.detach(), {0: "batch", 2: "length"}) for x in self(tokens.example, observed.example)
        ]
        cache = torch.zeros(2, 3, how.heads, how.steps, how.head_dim)
        # one tensor in two places would become one input
        drawn = [GraphInput(x, {0: "batch", 1: "samples"}) for x in (cache, cache.clone())]
        inputs = {
            "last": GraphInput(torch.ones(2, 3, dtype=torch.int64), {0: "batch", 1: "samples"}),
            "place": GraphInput(torch.ones(1, dtype=torch.int64)),
            "keys": drawn[0], "values": drawn[1], "cross_keys": crossing[0], "cross_values": crossing[1],
            "observed": observed,
        }  # fmt: skip
        encoded = ("cross_keys", "cross_values")
        return (
            GraphProgram(self, {"tokens": tokens, "observed": observed}, encoded, limits),
            GraphProgram(self.step, inputs, ("logits", "new_keys", "new_values"), limits),
        )


class DecoderStep(nn.Module):
    """Logits [B, S, tokens] of the next token of S paths a series, and the keys and values of this one.

    Inputs are the last tokens [B, S], the number of tokens before them [1], keys and values of these
    [B, S, H, steps, head_dim], H heads of all layers one after the other, and those of the encoder with the
    mask [B, T] of what it observed. The new keys and values are [B, S, H, head_dim].
    """

    bias: Tensor

    def __init__(self, network: Any, steps: int) -> None:
        super().__init__()
        self.network = network
        blocks = network.decoder.block
        sites = [block.layer[0].SelfAttention for block in blocks]
        present = [site for site in sites if not isinstance(site, AbsentT5Attention)]
        self.heads = sum(site.q.out_features // site.key_value_proj_dim for site in present)
        with torch.no_grad():
            known = [site for site in present if site.has_relative_attention_bias]
            bias = known[0].compute_bias(steps, steps)[0] if known else torch.zeros(0, steps, steps)
        self.register_buffer(
            "bias", bias.transpose(0, 1).contiguous(), persistent=False
        )  # [query, head, key]
        self.steps = steps
        tied = network.config.tie_word_embeddings
        self.scale = network.config.d_model**-0.5 if tied else 1.0

    def forward(
        self,
        tokens: Tensor,
        step: Tensor,
        keys: Tensor,
        values: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        observed: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.network.shared(tokens)
        now = torch.arange(self.steps) == step
        later = torch.arange(self.steps) > step
        bias = torch.index_select(self.bias, 0, step)[0]
        unseen = torch.where(observed, 0.0, -torch.inf)[:, None, None]
        new_keys, new_values = [], []
        first = crossed = 0
        for block in self.network.decoder.block:
            own, other = block.layer[0], block.layer[1]
            site: Any = own.SelfAttention
            if not isinstance(site, AbsentT5Attention):
                normed, dim = own.layer_norm(hidden), site.key_value_proj_dim
                query, key, value = (
                    projection(normed).unflatten(-1, (-1, dim)) for projection in (site.q, site.k, site.v)
                )
                heads = slice(first, first := first + query.shape[2])
                new_keys.append(key)
                new_values.append(value)
                all_keys = torch.where(now[:, None], key[..., None, :], keys[:, :, heads])
                all_values = torch.where(now[:, None], value[..., None, :], values[:, :, heads])
                chosen = getattr(site, "selected_heads", slice(None))  # of a pruned model
                logits = (all_keys @ query[..., None])[..., 0] + bias[chosen]
                weights = torch.where(later, -torch.inf, logits).softmax(dim=-1)
                hidden = hidden + site.o((weights[..., None, :] @ all_values)[..., 0, :].flatten(2))
            site = other.EncDecAttention
            if not isinstance(site, AbsentT5Attention):
                query = site.q(other.layer_norm(hidden)).unflatten(-1, (-1, site.key_value_proj_dim))
                heads = slice(crossed, crossed := crossed + query.shape[2])
                logits = query.transpose(1, 2) @ cross_keys[:, heads].transpose(-1, -2)
                weights = (logits + unseen).softmax(dim=-1)
                hidden = hidden + site.o((weights @ cross_values[:, heads]).transpose(1, 2).flatten(2))
            hidden = block.layer[2](hidden)
        hidden = self.network.decoder.final_layer_norm(hidden) * self.scale
        return self.network.lm_head(hidden), torch.cat(new_keys, dim=2), torch.cat(new_values, dim=2)
