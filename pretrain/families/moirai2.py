"""Moirai-2: quantile loss at every patch after those that a window is normalised by.

Upstream normalises by all that is known and forecasts from the last patch. Here the known patches are
a part of the window, drawn at random, so that no loss is of values that the normalisation has seen.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from uni2ts.model.moirai2 import Moirai2Module
from uni2ts.module.norm import RMSNorm
from uni2ts.module.position import BinaryAttentionBias, QueryKeyProjection, RotaryProjection
from uni2ts.module.transformer import TransformerEncoder

from pretrain.families.supervision import LEVELS, pinball
from pretrain.loop import Losses, Objective
from tsprune.data.training import CLIP, Windows
from tsprune.models.checkpoints import MAX_CONTEXT
from tsprune.models.moirai2 import Moirai2

KNOWN = (0.125, 0.25, 0.5, 1.0)  # shares of the history that windows are normalised by, equally often


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are the laboratory's.

    width : at least 64, or upstream's class, which wants a head for each 64, cannot be made
    heads : any number; upstream's config cannot tell it
    hidden : of the gated MLPs, which have three matrices
    predicted : patches that each patch forecasts
    context : history in a window, a multiple of the patch
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 64
    layers: int = 8
    heads: int = 4
    hidden: int = 85
    patch: int = 32
    predicted: int = 4
    context: int = 512
    series_length: int = 2304


def config(size: Size) -> dict[str, Any]:
    """What upstream's config.json says, at another size."""
    return {
        "d_model": size.width,
        "d_ff": size.hidden,
        "num_layers": size.layers,
        "patch_size": size.patch,
        "max_seq_len": 512,
        "attn_dropout_p": 0.0,
        "dropout_p": 0.0,
        "scaling": True,
        "num_predict_token": size.predicted,
        "quantile_levels": [round(float(level), 1) for level in LEVELS],
    }


def module(size: Size) -> Moirai2Module:
    """Upstream's module with any number of heads: its encoder is built as upstream builds it."""
    sizes = config(size)
    built = Moirai2Module(**sizes)
    built.encoder = TransformerEncoder(
        size.width,
        size.layers,
        num_heads=size.heads,
        pre_norm=True,
        attn_dropout_p=0.0,
        dropout_p=0.0,
        norm_layer=RMSNorm,
        activation=functional.silu,
        use_glu=True,
        use_qk_norm=True,
        var_attn_bias_layer=partial(BinaryAttentionBias),
        time_qk_proj_layer=partial(
            QueryKeyProjection,
            proj_layer=RotaryProjection,
            kwargs={"max_len": sizes["max_seq_len"]},
            partial_factor=(0.0, 0.5),
        ),
        shared_var_attn_bias=False,
        shared_time_qk_proj=True,
        d_ff=size.hidden,
    )
    return built


class Moirai2Objective(Objective):
    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.window_length = self.size.context + self.size.predicted * self.size.patch
        self.series_length = self.size.series_length

    def build(self) -> nn.Module:
        built = module(self.size)
        for name, parameter in built.named_parameters():
            if name.endswith((".out_proj.weight", ".fc2.weight")) and name.startswith("encoder"):
                nn.init.normal_(parameter, std=0.3 / self.size.width**0.5)
        network: nn.Module = built
        return network

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        size = self.size
        rng = np.random.default_rng([step, 17])
        count, history = len(windows), size.context // size.patch
        target = torch.from_numpy(windows).view(count, -1, size.patch)
        # a history need not fill its first patch: upstream pads it in front
        padding = np.where(rng.random(count) < 0.5, rng.integers(0, size.patch, count), 0)
        first = torch.from_numpy(np.arange(size.patch)[None] >= padding[:, None])
        observed = torch.ones_like(target, dtype=torch.bool)
        observed[:, 0] = first
        known = np.maximum(1, (rng.choice(KNOWN, count) * history).astype(int))
        position = torch.arange(target.shape[1])[None].expand(count, -1)
        predicted = position >= torch.from_numpy(known)[:, None]
        outputs, scaled = model(
            torch.where(observed, target, 0.0),
            observed,
            sample_id=torch.ones_like(position),
            time_id=position,
            variate_id=torch.zeros_like(position),
            prediction_mask=predicted,
        )
        shape = (count, target.shape[1], size.predicted, len(LEVELS), size.patch)
        quantiles = outputs.float().view(shape).transpose(3, 4)[:, :history]
        future = scaled.unfold(1, size.predicted, 1)[:, 1:].transpose(2, 3).clamp(-CLIP, CLIP)
        # normalised by upstream's scaler, over the known patches
        seen = observed & ~predicted[..., None]
        usable = _deviation(target, seen) > 0.05
        asked = (position[:, :history] >= torch.from_numpy(known)[:, None] - 1) & usable[:, None]
        values = pinball(quantiles, future).mean((2, 3))
        total = (values * asked).sum() / asked.sum().clamp_min(1)
        return Losses(total, total)

    def export(self, model: nn.Module, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(dataclasses.asdict(self.size), indent=2) + "\n")


class BundledObjective(Moirai2Objective):
    """The bundled checkpoint: depth, width and context of the bundled TimesFM, in upstream's format.

    That format fixes heads of 64 dimensions.
    """

    def __init__(self, size: Size | None = None) -> None:
        bundled = Size(width=128, layers=8, heads=2, hidden=170, predicted=2, context=1024)
        super().__init__(size or bundled)

    def export(self, model: nn.Module, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        metadata = {MAX_CONTEXT: str(self.size.context)}
        save_file(model.state_dict(), directory / "model.safetensors", metadata=metadata)
        (directory / "config.json").write_text(json.dumps(config(self.size), indent=2) + "\n")


def _deviation(target: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Standard deviation of what is seen of each window, [B]."""
    count = seen.sum((1, 2))
    mean = (target * seen).sum((1, 2)) / count
    return (((target - mean[:, None, None]) * seen).square().sum((1, 2)) / count).sqrt()


def opened(directory: Path) -> Moirai2:
    """The forecaster of an exported checkpoint, whose heads upstream's format could not tell."""
    size = Size(**json.loads((directory / "config.json").read_text()))
    built = module(size)
    built.load_state_dict(load_file(directory / "model.safetensors"))
    return Moirai2(built.eval(), config(size), str(directory), size.context)
