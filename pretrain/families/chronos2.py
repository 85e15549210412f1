"""Chronos-2: quantile loss on the future's patches, and on patches hidden from the history.

An encoder reads the history and empty patches for the future; a hidden patch is given to it as those are. So
the same readout is supervised at both, and supervision is denser than one future per window.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model
from torch import Tensor, nn

from pretrain.families.hidden_patches import Batch, Contexts, draw
from pretrain.families.supervision import LEVELS, pinball
from pretrain.families.t5 import narrow_outputs
from pretrain.loop import Losses, Objective
from tsprune.data.training import Windows

REBUILDING = 0.5  # weight of the loss at hidden patches


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are the laboratory's.

    horizon : a multiple of the patch
    contexts : the four lengths of history that batches are drawn with, ascending; the last is the model's
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 64
    layers: int = 8
    heads: int = 4
    hidden: int = 128
    patch: int = 32
    horizon: int = 128
    contexts: Contexts = (96, 192, 320, 512)
    series_length: int = 2304

    @property
    def context(self) -> int:
        return self.contexts[-1]


def config(size: Size) -> Chronos2CoreConfig:
    """Chronos-2's config at another size."""
    forecasting = {
        "context_length": size.context,
        "input_patch_size": size.patch,
        "input_patch_stride": size.patch,
        "output_patch_size": size.patch,
        "max_output_patches": size.horizon // size.patch,
        "quantiles": [round(float(level), 1) for level in LEVELS],
        "use_reg_token": True,
        "use_arcsinh": False,
    }
    return Chronos2CoreConfig(
        d_model=size.width,
        d_kv=size.width // size.heads,
        d_ff=size.hidden,
        num_layers=size.layers,
        num_heads=size.heads,
        dropout_rate=0.0,
        chronos_config=forecasting,
        chronos_pipeline_class="Chronos2Pipeline",
    )


@torch.no_grad()
def _initialise(model: Chronos2Model) -> None:
    """Weights as upstream means them: under transformers 5 its own initialisation sets all alike.

    Output projections are narrowed, as in the T5 recipes.
    """
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            nn.init.ones_(parameter)
        elif name == "shared.weight":
            nn.init.normal_(parameter)
        elif parameter.ndim == 1:
            nn.init.zeros_(parameter)
        else:
            scale = parameter.shape[1] ** -0.5
            if name.endswith(".q.weight"):  # attention has no 1 / sqrt(d) of its own
                scale *= model.config.d_kv**-0.5
            if name.startswith("output_patch_embedding"):
                scale *= 0.05
            nn.init.normal_(parameter, std=scale)
    narrow_outputs(model)


class Chronos2Objective(Objective):
    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.window_length = self.size.context + self.size.horizon
        self.series_length = self.size.series_length

    def build(self) -> nn.Module:
        model = Chronos2Model(config(self.size))
        _initialise(model)
        built: nn.Module = model
        return built

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        assert isinstance(model, Chronos2Model)
        batch = draw(windows, step, progress, patch=self.size.patch, contexts=self.size.contexts)
        rebuilt, future = self._forward(model, batch)
        target = batch.target.view(future.shape[:3])
        forecast = (pinball(future, target).mean((1, 2)) * batch.usable[:, 0]).mean()
        weight = batch.to_rebuild
        rebuilding = (pinball(rebuilt, batch.patches) * weight).sum() / weight.sum().clamp_min(1)
        return Losses(forecast + REBUILDING * rebuilding, forecast)

    def _forward(self, model: Chronos2Model, batch: Batch) -> tuple[Tensor, Tensor]:
        """Quantiles of the history's patches [B, N, P, 9] and of the future's [B, horizon / P, P, 9].

        Upstream's `encode`, on a batch that is normalised already and has hidden patches.
        """
        patches, seen, size = batch.patches, batch.seen, self.size
        count, known = patches.shape[:2]
        asked = size.horizon // size.patch
        visible = seen & ~batch.hidden
        empty = torch.zeros(count, asked, size.patch)
        values = torch.cat([patches * visible, empty], 1)
        mask = torch.cat([visible.float(), empty], 1)
        steps = torch.arange(-known * size.patch, size.horizon) / model.chronos_config.time_encoding_scale
        time = steps.view(1, -1, size.patch).expand(count, -1, -1)
        tokens = model.input_patch_embedding(torch.cat([time, values, mask], -1))
        register = model.shared(torch.full((count, 1), model.config.reg_token_id))
        ones = torch.ones(count, 1 + asked, dtype=torch.bool)
        encoded = model.encoder(
            attention_mask=torch.cat([seen.any(-1), ones], 1).float(),
            inputs_embeds=torch.cat([tokens[:, :known], register, tokens[:, known:]], 1),
            group_ids=torch.arange(count),
        )[0]
        outputs = model.output_patch_embedding(encoded).float()
        quantiles = outputs.view(count, known + 1 + asked, len(LEVELS), size.patch).transpose(2, 3)
        return quantiles[:, :known], quantiles[:, known + 1 :]

    def export(self, model: nn.Module, directory: Path) -> None:
        assert isinstance(model, Chronos2Model)
        model.save_pretrained(directory)


class BundledObjective(Chronos2Objective):
    """The bundled checkpoint: patches, horizon, width and heads of the bundled Chronos-Bolt."""

    def __init__(self) -> None:
        super().__init__(Size(width=128, layers=6, heads=8, hidden=512, patch=16, horizon=64))
