"""Toto: likelihood of a mixture of Student-Ts over the patch that follows each patch.

Every patch is normalised by the history up to and including it, by upstream's own causal scaler,
and the loss is upstream's: negative log-likelihood and a robust loss of the mean.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from toto.model.losses import CombinedLoss
from toto.model.toto import Toto

from pretrain.loop import Losses, Objective
from tsprune.data.training import CLIP, Windows
from tsprune.models.checkpoints import MAX_CONTEXT


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    layers : attention over time in all but the last, which attends over variates as upstream's does
    components : Student-Ts in the mixture
    context : history in a window, a multiple of the patch
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 192
    layers: int = 10
    heads: int = 6
    hidden: int = 384
    patch: int = 64
    components: int = 6
    context: int = 2048
    series_length: int = 4352


def config(size: Size) -> dict[str, Any]:
    """What upstream's config.json says, at another size."""
    return {
        "patch_size": size.patch,
        "stride": size.patch,
        "embed_dim": size.width,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "mlp_hidden_dim": size.hidden,
        "dropout": 0.0,
        "spacewise_every_n_layers": size.layers,
        "spacewise_first": False,
        "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
        "output_distribution_classes": ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        "output_distribution_kwargs": {"k_components": size.components},
        "use_memory_efficient_attention": False,
        "stabilize_with_global": True,
        "scale_factor_exponent": 10.0,
    }


class TotoObjective(Objective):
    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.window_length = self.size.context + self.size.patch
        self.series_length = self.size.series_length

    def build(self) -> nn.Module:
        toto = Toto(**config(self.size))
        for name, parameter in toto.named_parameters():
            if name.endswith((".wO.weight", ".mlp.2.weight")):
                nn.init.normal_(parameter, std=0.3 / self.size.width**0.5)
        module: nn.Module = toto
        return module

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        assert isinstance(model, Toto)
        rng = np.random.default_rng([step, 17])
        context, patch = self.size.context, self.size.patch
        # upstream adds 0.1 to the variance: series of any size must be met, above all large ones
        size = (10 ** rng.uniform(-0.5, 2.0, (len(windows), 1))).astype(np.float32)
        x = torch.from_numpy(windows * size)
        # a history need not fill its first patch: upstream pads it in front with zeros
        padding = np.where(rng.random(len(x)) < 0.5, rng.integers(0, patch, len(x)), 0)
        observed = torch.from_numpy(np.arange(context)[None] >= padding[:, None])[:, None]
        history = x[:, None, :context] * observed
        identity = torch.zeros_like(history, dtype=torch.int)
        flat, loc, scale = model.model.backbone(history, observed, identity)

        target = ((x[:, None, patch:] - loc) / scale).clamp(-CLIP, CLIP)
        with torch.autocast("cpu", enabled=False):
            values = CombinedLoss()(model.model.output_distribution(flat.float()), target)
        deviation = (scale**2 - 0.1).clamp_min(0).sqrt() / torch.from_numpy(size)[:, None]
        usable = (deviation > 0.05).float()  # where the history varies
        total = (values * usable).sum() / usable.sum().clamp_min(1)
        return Losses(total, total)

    def export(self, model: nn.Module, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # the rotary embedding's buffers are shared by the layers; safetensors wants them apart
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        # config.json must hold upstream's keys only, so the trained history is noted here
        metadata = {MAX_CONTEXT: str(self.size.context)}
        save_file(tensors, directory / "model.safetensors", metadata=metadata)
        (directory / "config.json").write_text(json.dumps(config(self.size), indent=2) + "\n")
