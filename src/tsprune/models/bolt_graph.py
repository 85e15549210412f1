"""Chronos-Bolt as one graph from contexts to quantiles, for export."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsprune.models.chronos_bolt import ChronosBolt
from tsprune.models.copies import network_copy
from tsprune.models.graph_ops import empirical_quantiles
from tsprune.models.t5 import attend_plainly


class BoltGraph(nn.Module):
    """Contexts [B, T], NaN where a value is missing, to quantiles [B, Q, horizon].

    Beyond a pass, as in upstream's `ChronosBoltPipeline.predict`: every level continues the context by
    itself, and the quantiles of their quantiles are the next steps.
    """

    def __init__(self, model: ChronosBolt, horizon: int) -> None:
        super().__init__()
        self.network = network_copy(model.module)
        attend_plainly(self.network)
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
