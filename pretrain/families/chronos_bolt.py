"""Chronos-Bolt: quantile loss on one future patch, plus masked-patch reconstruction.

One target per window is sparse supervision: without help the model stays for long on a plateau
where it has not learnt periodicity. A small head on the encoder, thrown away afterwards, rebuilds
patches that were hidden from the input; and batches of short contexts, which are cheap, come more
often in the beginning.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from torch import Tensor, nn
from transformers import T5Config

from pretrain.families.t5 import narrow_outputs, t5_config
from pretrain.loop import Losses, Objective
from tsprune.data.training import CLIP, Windows

EARLY, LATE = np.array([0.35, 0.35, 0.2, 0.1]), np.array([0.1, 0.15, 0.2, 0.55])
LEVELS = torch.arange(1, 10) / 10


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
    contexts: tuple[int, int, int, int] = (96, 192, 320, 512)
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


def _hidden_patches(count: int, patches: int, rng: np.random.Generator) -> np.ndarray:
    """Which patches to hide [count, patches]: scattered ones, or one run; none in a third."""
    share = rng.uniform(0.1, 0.35, (count, 1))
    scattered = rng.random((count, patches)) < share
    length = np.maximum(1, (share * patches).astype(int))
    start = (rng.random((count, 1)) * (patches - length)).astype(int)
    position = np.arange(patches)[None]
    run = (position >= start) & (position < start + length)
    kind = rng.random((count, 1))
    return np.where(kind < 0.35, scattered, np.where(kind < 0.65, run, False))


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
        rng = np.random.default_rng([step, 17])
        early = max(0.0, 1 - progress / 0.4)
        length = int(rng.choice(self.size.contexts, p=early * EARLY + (1 - early) * LATE))
        x = torch.from_numpy(windows[:, self.size.context - length :])
        context, target = x[:, :length], x[:, length:]
        short = rng.random(len(x)) < 0.35
        cut = np.where(short, rng.integers(0, length - 2 * self.size.patch, len(x)), 0)
        observed = torch.from_numpy(np.arange(length)[None] >= cut[:, None])

        count = observed.sum(1, keepdim=True)
        mean = (context * observed).sum(1, keepdim=True) / count
        deviation = (((context - mean) * observed) ** 2).sum(1, keepdim=True).div(count).sqrt()
        usable = (deviation > 0.05).float()
        safe = deviation.clamp_min(0.05)
        context = ((context - mean) / safe).clamp(-CLIP, CLIP) * observed
        target = ((target - mean) / safe).clamp(-CLIP, CLIP)

        patches = context.view(len(x), -1, self.size.patch)
        seen = observed.view(len(x), -1, self.size.patch)
        hidden = torch.from_numpy(_hidden_patches(len(x), patches.shape[1], rng))[..., None]
        prediction, rebuilt = self._forward(model, patches, seen, hidden)
        error = target[:, None] - prediction
        levels = LEVELS[:, None]
        pinball = 2 * torch.maximum(levels * error, (levels - 1) * error).mean((1, 2))
        forecast = (pinball * usable[:, 0]).mean()
        weight = (hidden & seen) * usable[..., None]
        gap = nn.functional.huber_loss(rebuilt, patches, reduction="none")
        reconstruction = (gap * weight).sum() / weight.sum().clamp_min(1)
        return Losses(forecast + 0.5 * (1 - progress) * reconstruction, forecast)

    def _forward(
        self, model: WithReconstruction, patches: Tensor, seen: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(quantiles [B, 9, horizon], rebuilt patches [B, N, patch]), both normalised.

        Upstream's `encode`, except that a hidden patch keeps its place in attention.
        """
        bolt = model.bolt
        visible = seen & ~hidden
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
