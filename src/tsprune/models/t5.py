"""Anatomy of T5 stacks, which Chronos and Chronos-Bolt share."""

from __future__ import annotations

from transformers import T5Config

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Projection, Readout, Stack, TimeAxis


def _attention(kind: str, module: str, heads: int, head_dim: int) -> AttentionSite:
    query, key, value = (Projection(f"{module}.{name}", heads, head_dim) for name in "qkv")
    return AttentionSite(kind, module, f"{module}.o", heads, head_dim, query, key, value)


def _block(stack: str, index: int, config: T5Config) -> Block:
    path = f"{stack}.block.{index}"
    size = config.num_heads, config.d_kv
    sites = [_attention("self", f"{path}.layer.0.SelfAttention", *size)]
    if stack == "decoder":
        sites.append(_attention("cross", f"{path}.layer.1.EncDecAttention", *size))
    return Block(path, tuple(sites), MLPSite(f"{path}.layer.{len(sites)}.DenseReluDense"))


def anatomy(config: T5Config, readout: str, *, span: int = 1, marks: int = 1) -> Anatomy:
    """Anatomy relative to a module with T5 stacks `encoder` and `decoder`.

    readout : path of the module that reads the decoder's output
    span, marks : of the encoder's positions (see `TimeAxis`); the decoder's start at its end
    """
    axes = {"encoder": TimeAxis(span, marks), "decoder": TimeAxis(1, from_end=False)}
    depths = {"encoder": config.num_layers, "decoder": config.num_decoder_layers or config.num_layers}
    stacks = tuple(
        Stack(name, tuple(_block(name, index, config) for index in range(depth)), name, axes[name])
        for name, depth in depths.items()
    )
    tokens = readout == "lm_head"
    # tied to the embedding, the head reads a smaller residual (transformers' T5ForConditionalGeneration)
    scale = config.d_model**-0.5 if tokens and config.tie_word_embeddings else 1.0
    norm = "decoder.final_layer_norm"
    return Anatomy(stacks, config.d_model, Readout((readout,), norm, scale=scale, tokens=tokens))
