"""Toto 1.0 as two graphs, for export: the history, and the next patch of all paths."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from toto.model.attention import AttentionAxis

from tsprune.arguments import SAMPLES
from tsprune.errors import TspruneError
from tsprune.models.absent import AbsentAttention
from tsprune.models.graph_ops import MOST_ROWS
from tsprune.models.graph_program import GraphInput, GraphProgram
from tsprune.models.sampled_patches import PatchSampling
from tsprune.models.toto import Toto

_SCALERS = {"StdMeanScaler": "history", "CausalPatchStdMeanScaler": "patch", "CausalStdMeanScaler": "step"}
_Attended = Callable[[Any, Tensor], Tensor]


class TotoGraph(nn.Module):
    """Scaled patches [B, N, P] of histories to the mixture over the next patch, and keys and values.

    Weights are [B, steps, K], and parameters (degrees of freedom, location, scale) [B, steps, 3 * K]. Keys
    and values are [B, H, N, head_dim], H heads of all layers over time one after the other. `step` is the
    other graph; None if one patch covers the horizon. Variates are forecast each by itself, so attention
    over variates passes on the value of the only one.
    """

    def __init__(self, model: Toto, horizon: int | None) -> None:
        super().__init__()
        backbone: Any = model.module
        self.patch = backbone.patch_embed.patch_size
        if backbone.fusion is not None or backbone.patch_embed.stride != self.patch:
            raise TspruneError(f"{model.name} has labels of variates or a stride; it is not exported")
        self.layers = _Layers(backbone, min(self.patch, horizon or self.patch))
        self.step = _NextPatch(self.layers) if horizon is not None and horizon > self.patch else None
        scaler = backbone.scaler
        self.sampling = PatchSampling(
            samples=model.samples,
            seed=model.seed,
            steps=self.layers.steps,
            patch=self.patch,
            components=("student_t",) * self.layers.components,
            scaler=_SCALERS[type(scaler).__name__],
            least_variance=scaler.minimum_scale,
            unbiased=getattr(scaler, "use_bessel_correction", False),
            bounded=getattr(scaler, "stabilize_with_global", False),
            exponent=float(getattr(scaler, "scale_factor_exponent", 0)),
            heads=self.layers.heads,
            head_dim=self.layers.head_dim,
        )

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        position = torch.arange(patches.shape[1], dtype=torch.float32)
        later = position > position[:, None]
        middle = torch.floor(position[-1:] / 2)
        keys, values = [], []

        def attended(site: Any, hidden: Tensor) -> Tensor:
            query, key, value = (x.transpose(1, 2) for x in self.layers.projected(site, hidden))
            query, key = self.layers.rotated(query, key, position, middle)
            keys.append(key)
            values.append(value)
            logits = query @ key.transpose(-1, -2) * self.layers.head_dim**-0.5
            weights = torch.where(later, -torch.inf, logits).softmax(dim=-1)
            return (weights @ value).transpose(1, 2)

        hidden = self.layers(patches, attended)
        none = hidden.new_zeros(*hidden.shape[:1], 1, *hidden.shape[1:2], self.layers.head_dim)
        cache = [torch.cat(parts, dim=1) if parts else none for parts in (keys, values)]
        weights, parameters = self.layers.mixture(hidden[:, -1])
        return weights, parameters, cache[0], cache[1]

    def programs(self, length: int) -> tuple[GraphProgram, ...]:
        """The graphs, for histories of up to `length` steps."""
        most = -(-length // self.patch)
        limits = {"batch": (1, MOST_ROWS), "patches": (1, max(most, 4)), "samples": (1, SAMPLES)}
        limits["ahead"] = (1, 2**14)
        patches = torch.linspace(0, 1, 6 * self.patch).reshape(2, 3, self.patch).sin()
        mixture = ("weights", "parameters")
        inputs = {"patches": GraphInput(patches, {0: "batch", 1: "patches"})}
        first = GraphProgram(self, inputs, (*mixture, "past_keys", "past_values"), limits)
        if self.step is None:
            return (first,)
        past = [GraphInput(x.detach(), {0: "batch", 2: "patches"}) for x in self(patches)[2:]]
        cache = torch.zeros(2, 3, self.layers.heads, 4, self.layers.head_dim)
        # one tensor in two places would become one input
        drawn = [GraphInput(x, {0: "batch", 1: "samples", 3: "ahead"}) for x in (cache, cache.clone())]
        inputs = {
            "patch": GraphInput(torch.zeros(2, 3, self.patch), {0: "batch", 1: "samples"}),
            "place": GraphInput(torch.ones(1, dtype=torch.int64)),
            "keys": drawn[0], "values": drawn[1], "past_keys": past[0], "past_values": past[1],
        }  # fmt: skip
        return first, GraphProgram(self.step, inputs, (*mixture, "new_keys", "new_values"), limits)


class _NextPatch(nn.Module):
    """Scaled patches [B, S, P] of S paths to the mixture over the next one, and their keys and values.

    Other inputs are the number of patches drawn before these [1], keys and values of those
    [B, S, H, ahead, head_dim], and of the history [B, H, N, head_dim]. The new ones are [B, S, H, head_dim].
    """

    def __init__(self, layers: _Layers) -> None:
        super().__init__()
        self.layers = layers

    def forward(
        self,
        patch: Tensor,
        place: Tensor,
        keys: Tensor,
        values: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        slots = torch.arange(keys.shape[3])
        now, later = slots == place, slots > place
        position = (place + past_keys.shape[2]).to(torch.float32)
        middle = torch.floor(position / 2)
        new_keys: list[Tensor] = []
        new_values: list[Tensor] = []

        def attended(site: Any, hidden: Tensor) -> Tensor:
            query, key, value = self.layers.projected(site, hidden)
            query, key = self.layers.rotated(query, key, position, middle)
            first = sum(part.shape[2] for part in new_keys)
            heads = slice(first, first + site.num_heads)
            new_keys.append(key)
            new_values.append(value)
            own_keys, own_values = (
                torch.where(now[:, None], new[..., None, :], old[:, :, heads])
                for new, old in ((key, keys), (value, values))
            )
            query = query * self.layers.head_dim**-0.5
            past = (query.transpose(1, 2) @ past_keys[:, heads].transpose(-1, -2)).transpose(1, 2)
            own = (own_keys @ query[..., None])[..., 0]
            logits = torch.cat([past, torch.where(later, -torch.inf, own)], dim=-1)
            of_past, of_own = logits.softmax(dim=-1).split([past.shape[-1], own.shape[-1]], dim=-1)
            read = (of_past.transpose(1, 2) @ past_values[:, heads]).transpose(1, 2)
            found: Tensor = read + (of_own[..., None, :] @ own_values)[..., 0, :]
            return found

        hidden = self.layers(patch, attended)
        none = hidden.new_zeros(*hidden.shape[:2], 1, self.layers.head_dim)
        cache = [torch.cat(parts, dim=2) if parts else none for parts in (new_keys, new_values)]
        weights, parameters = self.layers.mixture(hidden)
        return weights, parameters, cache[0], cache[1]


class _Layers(nn.Module):
    """All of the backbone but attention over time: embedding, layers, and the mixture that is read out.

    steps : of a patch that are read out
    """

    frequencies: Tensor
    decay: Tensor

    def __init__(self, backbone: Any, steps: int) -> None:
        super().__init__()
        rotary = backbone.transformer.rotary_emb
        self.embed = copy.deepcopy(backbone.patch_embed.projection)
        self.layers = copy.deepcopy(backbone.transformer.layers, {id(rotary): None})  # it cannot be copied
        self.output: Any = copy.deepcopy(backbone.output_distribution)
        self.steps, self.width = steps, backbone.embed_dim
        rows = steps * self.width
        self.unembed = nn.Linear(self.width, rows, device="meta")
        self.unembed.weight = nn.Parameter(backbone.unembed.weight[:rows].clone(), requires_grad=False)
        self.unembed.bias = nn.Parameter(backbone.unembed.bias[:rows].clone(), requires_grad=False)
        self.components = self.output.loc_proj.out_features
        self.head_dim, self.base = 2 * len(rotary.freqs), rotary.scale_base
        self.register_buffer("frequencies", rotary.freqs.detach().clone(), persistent=False)
        self.register_buffer("decay", rotary.scale.detach().clone(), persistent=False)
        sites: list[Any] = [layer.attention for layer in self.layers]
        timed = [
            site.num_heads for site in sites if getattr(site, "attention_axis", None) is AttentionAxis.TIME
        ]
        self.heads = max(1, sum(timed))

    def forward(self, patches: Tensor, attended: _Attended) -> Tensor:
        """The stream [..., width] after all layers; `attended` of a module and its normed input."""
        hidden: Tensor = self.embed(patches)
        layers: Any = self.layers
        for layer in layers:
            site, normed = layer.attention, layer.norm1(hidden)
            if isinstance(site, AbsentAttention):
                for output in site.children():
                    hidden = hidden + cast(Tensor, output.bias)
            elif site.attention_axis is AttentionAxis.TIME:
                hidden = hidden + site.wO(attended(site, normed).flatten(-2))
            else:
                hidden = hidden + site.wO(self.projected(site, normed)[2].flatten(-2))
            hidden = hidden + layer.mlp(layer.norm2(hidden))
        return hidden

    def projected(self, site: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [..., heads, head_dim] of hidden [..., width]."""
        rows = site.wQKV(hidden).unflatten(-1, (3, self.head_dim, site.num_heads))  # heads are interleaved
        query, key, value = (rows.select(-3, part).transpose(-1, -2) for part in range(3))
        return query, key, value

    def rotated(self, query: Tensor, key: Tensor, position: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys [..., N, head_dim] at positions [N], with xPos's decay about `middle` [1]."""
        angle = (position[:, None] * self.frequencies).repeat_interleave(2, dim=-1)
        decay = self.decay ** ((position - middle) / self.base)[:, None]
        decay = torch.cat([decay, decay], dim=-1)
        cosine, sine = angle.cos(), angle.sin()

        def turned(x: Tensor, size: Tensor) -> Tensor:
            first, second = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
            return x * cosine * size + torch.stack([-second, first], dim=-1).flatten(-2) * sine * size

        return turned(query, decay), turned(key, decay**-1)

    def mixture(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [..., steps, K] and parameters [..., steps, 3 * K] after hidden [..., width]."""
        stream = self.unembed(hidden).unflatten(-1, (self.steps, self.width))
        least = torch.finfo(stream.dtype).eps
        freedom = 2.0 + functional.softplus(self.output.df(stream)).clamp_min(least)
        scale = functional.softplus(self.output.scale_proj(stream)).clamp_min(least)
        parameters = torch.stack([freedom, self.output.loc_proj(stream), scale], dim=-1).flatten(-2)
        if not hasattr(self.output, "mixture_weights"):
            return torch.ones_like(freedom), parameters
        return self.output.mixture_weights(stream).softmax(dim=-1), parameters
