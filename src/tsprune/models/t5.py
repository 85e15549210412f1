"""Shared by Chronos-T5 and Chronos-Bolt: the anatomy of T5 stacks, and pruned T5 attention.

T5 has one table of relative position biases per stack, [buckets, heads], which the first block's
self-attention owns and passes on to all others; cross-attention passes on zeros. Sublayers with
unlike heads select theirs where the bias is used, in an implementation of transformers' attention
registry. The table keeps the heads that any sublayer of its stack has, so if all have the same ones
nothing is left to select, and the model is one that upstream's config describes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.t5.modeling_t5 import eager_attention_forward

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Readout, SharedBias, Size, Stack, TimeAxis
from tsprune.errors import TspruneError
from tsprune.models.absent import AbsentAttention
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.locations import CONFIG
from tsprune.models.pretrained import PretrainedForecaster, hub_config
from tsprune.models.stated import Requirement, or_none, whole_number

SELECTING = "tsprune_selected_heads"
SELECTING_PLAINLY = "tsprune_selected_heads_plainly"
_KEYS = {  # of config.json
    "num_decoder_layers": or_none(whole_number()),
    "relative_attention_num_buckets": whole_number(4),
    "relative_attention_max_distance": whole_number(),
}


def t5_config(checkpoint: Checkpoint, settings: Mapping[str, Requirement]) -> T5Config:
    """The T5Config that config.json describes, checked; `settings` are the rules of its `chronos_config`."""
    config = T5Config.from_dict(hub_config(checkpoint, _KEYS, settings))
    if config.relative_attention_max_distance <= config.relative_attention_num_buckets // 2:
        raise TspruneError(f"{CONFIG}: relative_attention_max_distance is too small for its buckets")
    return config


def _attention(role: str, layer: str, name: str, heads: int, head_dim: int) -> AttentionSite:
    module = f"{layer}.{name}"
    return AttentionSite.of_layers(
        role,
        module,
        "qkvo",
        heads,
        head_dim,
        keys_from="encoder" if role == "cross" else None,
        others=(f"{layer}.layer_norm",),
        sizes=(Size(module, "inner_dim", "width"),),  # n_heads is that of the bias: see `adapt`
    )


def _block(stack: str, index: int, config: T5Config) -> Block:
    path = f"{stack}.block.{index}"
    size = config.num_heads, config.d_kv
    sites = [_attention("self", f"{path}.layer.0", "SelfAttention", *size)]
    if stack == "decoder":
        sites.append(_attention("cross", f"{path}.layer.1", "EncDecAttention", *size))
    last = f"{path}.layer.{len(sites)}"
    return Block(path, tuple(sites), MLPSite(f"{last}.DenseReluDense", (f"{last}.layer_norm",)))


def t5_anatomy(config: T5Config, readout: str, *, span: int = 1, marks: int = 1) -> Anatomy:
    """Anatomy relative to a module with T5 stacks `encoder` and `decoder`.

    readout : path of the module that reads the decoder's output
    span, marks : of the encoder's positions (see `TimeAxis`); the decoder's start at its end
    """
    axes = {"encoder": TimeAxis(span, marks), "decoder": TimeAxis(1, from_end=False)}
    depths = {"encoder": config.num_layers, "decoder": config.num_decoder_layers or config.num_layers}
    stacks = tuple(
        Stack(
            name,
            tuple(_block(name, index, config) for index in range(depth)),
            module=name,
            time=axes[name],
            causal=name == "decoder",
            bias=SharedBias(
                "self",
                f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias",
                tuple(range(config.num_heads)),
            ),
            norm="encoder.final_layer_norm" if name == "encoder" else None,
        )
        for name, depth in depths.items()
    )
    tokens = readout == "lm_head"
    # tied to the embedding, the head reads a smaller residual (transformers' T5ForConditionalGeneration)
    scale = config.d_model**-0.5 if tokens and config.tie_word_embeddings else 1.0
    norm = "decoder.final_layer_norm"
    read = Readout((readout,), norm, scale=scale, tokens=tokens)
    return Anatomy(stacks, config.d_model, readout=read)


class AbsentT5Attention(AbsentAttention):
    """Passes on the position bias that later blocks share."""

    def forward(self, *args: Any, position_bias: Tensor | None = None, **kwargs: Any) -> Any:
        return self.contribution(args[0]), position_bias, None


def _selecting(module: nn.Module, *tensors: Any, position_bias: Tensor, **kwargs: Any) -> Any:
    """Attention of a sublayer that has some heads of `position_bias` [1, heads, queries, keys]."""
    kwargs["position_bias"] = position_bias[:, module.get_buffer("selected_heads")]
    return sdpa_attention_forward(module, *tensors, **kwargs)


def _selecting_plainly(module: nn.Module, *tensors: Any, position_bias: Tensor, **kwargs: Any) -> Any:
    kwargs["position_bias"] = position_bias[:, module.get_buffer("selected_heads")]
    return eager_attention_forward(module, *tensors, **kwargs)


ALL_ATTENTION_FUNCTIONS.register(SELECTING, _selecting)
ALL_ATTENTION_FUNCTIONS.register(SELECTING_PLAINLY, _selecting_plainly)


def attend_plainly(module: nn.Module) -> None:
    """Makes the T5 stacks in `module` attend by products and softmax, without a cache, as ONNX can."""
    for part in module.modules():
        config = getattr(part, "config", None)
        if isinstance(config, T5Config):
            selects = config._attn_implementation in (SELECTING, SELECTING_PLAINLY)
            config._attn_implementation = SELECTING_PLAINLY if selects else "eager"
            config.use_cache = False


def _select(attention: Any, chosen: list[int], heads: int) -> None:
    """Makes an attention module use the heads `chosen` of a bias with `heads` heads."""
    attention.n_heads = heads
    weight = attention.q.weight
    device = "cpu" if weight.is_meta else weight.device  # weights may follow later, see `skeleton`
    attention.register_buffer("selected_heads", torch.tensor(chosen, device=device), persistent=False)
    if chosen != list(range(heads)) and attention.config._attn_implementation != SELECTING:
        attention.config = copy.copy(attention.config)  # others share it
        attention.config._attn_implementation = SELECTING


class T5Forecaster(PretrainedForecaster):
    """Shared by both families: adapting to a removal.

    cached : whether upstream's decoder runs with a key-value cache, which must not be deeper than the encoder
    """

    cached = False
    absent = AbsentT5Attention

    def adapt(self) -> None:
        """Tells every sublayer its heads of the bias that it gets, and its place in the key-value cache."""
        for stack in self.anatomy.stacks:
            for role in ("self", "cross"):
                sites = [site for block in stack.blocks for site in block.attention if site.role == role]
                widest = max((site.heads for site in sites), default=0)
                for index, site in enumerate(sites):
                    attention: Any = self.module.get_submodule(site.module)
                    attention.layer_idx = index  # the cache's first layer tells how long it is
                    if role == "self" and stack.bias is not None:
                        attention.has_relative_attention_bias = index == 0
                        known = stack.bias.numbers
                        _select(attention, [known.index(head) for head in site.numbers], len(known))
                    else:  # zeros, made by the first
                        _select(attention, list(range(site.heads)), widest)

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole blocks can go, and heads where all sublayers of a stack keep the same ones, as many each."""
        heads, stacks = self.anatomy.equal_heads, self.anatomy.stacks
        depths = {stack.name: len(stack.blocks) for stack in stacks}
        same = all(stack.bias is not None and len(stack.bias.numbers) == heads for stack in stacks)
        if heads is None or not same or (self.cached and depths["decoder"] > depths["encoder"]):
            return None
        layers = {"num_layers": depths["encoder"], "num_decoder_layers": depths["decoder"]}
        return {**config, "num_heads": heads, **layers}
