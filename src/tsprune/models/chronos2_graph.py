"""Chronos-2 as one graph from contexts to quantiles, for export."""

from __future__ import annotations

import copy
from typing import Any

from chronos.chronos2.layers import MHA, AttentionOutput
from torch import Tensor, nn

from tsprune.errors import TspruneError
from tsprune.models.chronos2 import Chronos2
from tsprune.models.forecast import LEVELS


class _AloneInGroup(nn.Module):
    """Group attention of a series that is a group of its own: its weights are 1.

    What upstream computes, without the pairs of series of a batch, whose weights are 0.
    """

    def __init__(self, attention: MHA) -> None:
        super().__init__()
        self.v, self.o = attention.v, attention.o

    def forward(self, hidden: Tensor, **_: Any) -> AttentionOutput:
        return AttentionOutput(hidden_states=self.o(self.v(hidden)))


class Chronos2Graph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, P * future_span].

    The future's P patches are in the sequence that the network sees, so a shorter forecast is not the
    beginning of a longer one: the second input is any array of P numbers.

    Raises TspruneError for a horizon of more than one pass, and if upstream would interpolate the levels.
    """

    def __init__(self, model: Chronos2, horizon: int) -> None:
        super().__init__()
        if horizon > model.readout_horizon:
            raise TspruneError(
                f"{model.name} is exported for one pass, up to {model.readout_horizon} steps, not {horizon}"
            )
        known = list(model.module.chronos_config.quantiles)
        if not set(LEVELS) <= set(known):
            raise TspruneError(f"{model.name} has other quantile levels than {LEVELS}; it is not exported")
        self.network = copy.deepcopy(model.module)
        self.network.config._attn_implementation = "eager"
        for module in self.network.modules():
            if isinstance(module, MHA):
                module.config._attn_implementation = "eager"
        for block in self.network.encoder.block:
            if isinstance(block.layer[1].self_attention, MHA):
                block.layer[1].self_attention = _AloneInGroup(block.layer[1].self_attention)
        settings = self.network.chronos_config
        patch = settings.input_patch_size
        settings.context_length = -(-settings.context_length // patch) * patch  # whole patches are not cut
        self.chosen = [known.index(level) for level in LEVELS]
        self.future_span = settings.output_patch_size

    def forward(self, context: Tensor, future: Tensor) -> Tensor:
        quantiles: Tensor = self.network(context=context, num_output_patches=future.shape[0]).quantile_preds
        return quantiles[:, self.chosen]
