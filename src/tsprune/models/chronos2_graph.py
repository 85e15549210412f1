"""Chronos-2 as one graph from contexts to quantiles, for export."""

from __future__ import annotations

from chronos.chronos2.layers import MHA, AttentionOutput
from torch import Tensor, nn

from tsprune.errors import TspruneError
from tsprune.models.alone_in_group import alone_in_groups
from tsprune.models.chronos2 import Chronos2
from tsprune.models.copies import network_copy
from tsprune.models.forecast import LEVELS
from tsprune.models.graph_ops import require_one_pass


class Chronos2Graph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, P * future_span].

    The future's P patches are in the sequence that the network sees, so a shorter forecast is not the
    beginning of a longer one: the second input is any array of P numbers.

    Raises TspruneError for a horizon of more than one pass, and if upstream would interpolate the levels.
    """

    def __init__(self, model: Chronos2, horizon: int) -> None:
        super().__init__()
        require_one_pass(model, horizon)
        known = list(model.module.chronos_config.quantiles)
        if not set(LEVELS) <= set(known):
            raise TspruneError(f"{model.name} has other quantile levels than {LEVELS}; it is not exported")
        self.network = network_copy(model.module)
        self.network.config._attn_implementation = "eager"
        for module in self.network.modules():
            if isinstance(module, MHA):
                module.config._attn_implementation = "eager"
        alone_in_groups(self.network, model.anatomy, AttentionOutput)
        settings = self.network.chronos_config
        patch = settings.input_patch_size
        settings.context_length = -(-settings.context_length // patch) * patch  # whole patches are not cut
        self.chosen = [known.index(level) for level in LEVELS]
        self.future_span = settings.output_patch_size

    def forward(self, context: Tensor, future: Tensor) -> Tensor:
        quantiles: Tensor = self.network(context=context, num_output_patches=future.shape[0]).quantile_preds
        return quantiles[:, self.chosen]
