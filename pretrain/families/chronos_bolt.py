"""Chronos-Bolt: quantile loss on one future patch, plus masked-patch reconstruction.

A small head on the encoder, thrown away afterwards, rebuilds patches that were hidden from the input
(`pretrain.families.hidden_patches`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from torch import Tensor, nn
from transformers import T5Config

from pretrain.families.hidden_patches import Batch, Contexts, draw
from pretrain.families.supervision import LEVELS, pinball
from pretrain.families.t5 import narrow_outputs, t5_config
from pretrain.loop import Losses, Objective
from tsprune.data.training import Windows


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    contexts : the four lengths of history that batches are drawn with, ascending; the last is the
        model's context length
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 128
    layers: int = 6
    heads: int = 8
    hidden: int = 512
    patch: int = 16
    horizon: int = 64
    contexts: Contexts = (96, 192, 320, 512)
    series_length: int = 2304

    @property
    def context(self) -> int:
        return self.contexts[-1]


def config(size: Size) -> T5Config:
    chronos = {
        "context_length": size.context,
        "prediction_length": size.horizon,
        "input_patch_size": size.patch,
        "input_patch_stride": size.patch,
        "quantiles": [round(float(q), 1) for q in LEVELS],
        "use_reg_token": True,
    }
    return t5_config(
        size,
        "ChronosBoltModelForForecasting",
        use_cache=False,
        chronos_pipeline_class="ChronosBoltPipeline",
        chronos_config=chronos,
    )


class WithReconstruction(nn.Module):
    """The upstream model and the training-only reconstruction head."""

    def __init__(self, bolt: ChronosBoltModelForForecasting, size: Size) -> None:
        super().__init__()
        self.bolt = bolt
        self.reconstruct = nn.Linear(size.width, size.patch)


class ChronosBoltObjective(Objective):
    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.window_length = self.size.context + self.size.horizon
        self.series_length = self.size.series_length

    def build(self) -> nn.Module:
        bolt = ChronosBoltModelForForecasting(config(self.size))
        narrow_outputs(bolt)
        with torch.no_grad():
            for name, parameter in bolt.named_parameters():
                if name.startswith("output_patch_embedding") and parameter.ndim == 2:
                    parameter *= 0.05
        return WithReconstruction(bolt, self.size)

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        assert isinstance(model, WithReconstruction)
        batch = draw(windows, step, progress, patch=self.size.patch, contexts=self.size.contexts)
        prediction, rebuilt = self._forward(model, batch)
        quantiles = prediction.transpose(1, 2)
        forecast = (pinball(quantiles, batch.target).mean(-1) * batch.usable[:, 0]).mean()
        weight = batch.to_rebuild
        gap = nn.functional.huber_loss(rebuilt, batch.patches, reduction="none")
        reconstruction = (gap * weight).sum() / weight.sum().clamp_min(1)
        return Losses(forecast + 0.5 * (1 - progress) * reconstruction, forecast)

    def _forward(self, model: WithReconstruction, batch: Batch) -> tuple[Tensor, Tensor]:
        """(quantiles [B, 9, horizon], rebuilt patches [B, N, patch]), both normalised.

        Upstream's `encode`, except that a hidden patch keeps its place in attention.
        """
        bolt, patches, seen = model.bolt, batch.patches, batch.seen
        visible = seen & ~batch.hidden
        embedded = bolt.input_patch_embedding(torch.cat([patches * visible, visible.float()], -1))
        register = bolt.shared(torch.ones(len(patches), 1, dtype=torch.long))
        embedded = torch.cat([embedded, register], 1)
        attended = torch.cat([seen.any(-1), torch.ones(len(patches), 1, dtype=torch.bool)], 1).float()
        encoded = bolt.encoder(attention_mask=attended, inputs_embeds=embedded)[0]
        decoded = bolt.decode(embedded, attended, encoded)
        quantiles = bolt.output_patch_embedding(decoded).float().view(len(patches), -1, self.size.horizon)
        return quantiles, model.reconstruct(encoded[:, :-1]).float()

    def export(self, model: nn.Module, directory: Path) -> None:
        assert isinstance(model, WithReconstruction)
        model.bolt.save_pretrained(directory)


class TinyObjective(ChronosBoltObjective):
    """The sibling with about half of the parameters: narrower and with fewer layers, all else equal."""

    def __init__(self) -> None:
        super().__init__(Size(width=96, layers=5, heads=6, hidden=384))
