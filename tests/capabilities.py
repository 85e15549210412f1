"""Facts about the families, written by hand: tests are skipped by these, never by the anatomy on trial."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from tsprune.anatomy import AttentionSite
from tsprune.models import Forecaster


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """Facts about a family, from the upstream papers and code.

    samples : draws paths
    tokens : decodes a vocabulary, value by value
    crosses : has cross-attention
    groups : attends over series as well
    reads_one_position : its forecast needs the readout at one position only
    norms_outputs : a norm follows every sublayer before the residual stream
    biased : the projections of its attention have biases
    gated : a gate multiplies the output of each head
    turns_back : attention over series swaps the axes again before its output projection
    """

    samples: bool = False
    tokens: bool = False
    crosses: bool = False
    groups: bool = False
    reads_one_position: bool = False
    norms_outputs: bool = False
    biased: bool = False
    gated: bool = False
    turns_back: bool = False


CAPABILITIES = {
    "chronos-bolt": Capabilities(crosses=True),
    "chronos-t5": Capabilities(samples=True, tokens=True, crosses=True),
    "chronos2": Capabilities(groups=True),
    "timesfm": Capabilities(reads_one_position=True, norms_outputs=True),
    "toto": Capabilities(samples=True, groups=True, biased=True),
    "moirai": Capabilities(samples=True),
    "moirai2": Capabilities(),
    "moirai-moe": Capabilities(samples=True),
    "t0": Capabilities(groups=True, biased=True),
    "timesfm3": Capabilities(groups=True, norms_outputs=True),
    "timestral": Capabilities(groups=True, gated=True, turns_back=True),
    "toto2": Capabilities(groups=True, biased=True),
}


def call_attention(model: Forecaster, site: AttentionSite, tokens: Tensor) -> None:
    """Runs one attention module on tokens [N, 1, d_model], N sequences of one position."""
    module = model.module.get_submodule(site.module)
    if model.family == "toto":
        module(0, tokens[:, None])
    elif model.family == "chronos2":
        position = torch.zeros(1, 1, dtype=torch.long, device=tokens.device)
        module(tokens, mask=tokens.new_zeros(1, 1, 1, 1), position_ids=position)
    elif model.family == "t0":
        seen = torch.ones(len(tokens), 1, 1, 1, dtype=torch.bool, device=tokens.device)
        module(tokens.transpose(0, 1) if site.role == "group" else tokens, seen)
    elif model.family == "timestral":
        shape = len(tokens), 1, site.head_dim
        rotation = tokens.new_ones(shape), tokens.new_zeros(shape)
        module(tokens.transpose(0, 1) if site.role == "variate" else tokens, None, *rotation)
    elif model.family in ("moirai", "moirai2", "moirai-moe"):
        module(tokens, tokens, tokens)
    else:
        module(tokens, **({"key_value_states": tokens} if site.role == "cross" else {}))
