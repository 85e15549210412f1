"""Toto 2.0: quantile loss of the patch after every patch, with runs of patches hidden from the input.

Upstream forecasts all patches at once: those of the future are hidden, and each is forecast from the position
before it ("contiguous patch masking", arXiv 2605.20119). So runs are hidden here as well, and supervision is
causal and dense. A patch is normalised by the history up to the position that forecasts it. The network's
outputs are quantiles of its arcsinh, and so the loss is of that.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from toto2 import Toto2Model, Toto2ModelConfig

from pretrain.families.supervision import QUANTILES_EVERYWHERE, pinball
from pretrain.loop import Losses, Objective
from tsprune.data.training import CLIP, Windows
from tsprune.models.checkpoints import MAX_CONTEXT
from tsprune.models.unit_scaling import exact_gradients, rates

PAIRED = 0.5  # share of the steps whose windows are pairs of variates
HIDDEN = 0.5  # how often a run is hidden at the end of a window, and as often one elsewhere


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    layers : attention over time in all but the last, which attends over variates as upstream's does
    hidden : of the gated MLPs, which have three matrices; by upstream's rule 8/3 of the width
    context, future : history and longest run of hidden patches at its end, multiples of the patch
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 96
    layers: int = 8
    heads: int = 6
    hidden: int = 256
    patch: int = 32
    context: int = 1024
    future: int = 256
    series_length: int = 2560


def config(size: Size) -> Toto2ModelConfig:
    """Upstream's config of Toto 2.0 4m at another size."""
    return Toto2ModelConfig(
        patch_size=size.patch,
        d_model=size.width,
        num_heads=size.heads,
        num_layers=size.layers,
        layer_group_size=size.layers,
        num_variate_layers_per_group=1,
        variate_layer_first=False,
        norm_eps=1e-4,
        attn_bias=True,
        d_ff=size.hidden,
        residual_mult=0.75,
        residual_attn_ratio=Toto2ModelConfig.compute_residual_attn_ratio(size.context, size.patch),
        qk_norm=False,
        per_dim_scale=True,
        use_xpos=True,
    )


class Toto2Objective(Objective):
    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.window_length = self.size.context + self.size.future
        self.series_length = self.size.series_length

    def build(self) -> nn.Module:
        """Upstream's initialisation, unit variance everywhere, but for what follows.

        Logits begin with unit variance, as in attention divided by sqrt(d): upstream divides by d. Branches
        begin narrow, as in the other recipes; their share of the stream (residual_mult) is upstream's.
        """
        model = Toto2Model(config(self.size))
        scale = (self.size.width // self.size.heads) ** 0.5
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("per_dim_scale"):  # upstream multiplies by softplus(p) / log 2
                    parameter.fill_(float(np.log(np.expm1(scale * np.log(2)))))
                elif name.endswith(("out_proj.weight", "fc2.weight")):
                    parameter *= 0.3
        built: nn.Module = model
        return built

    def rates(self, model: nn.Module) -> Mapping[str, float]:
        return rates(model)

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        model.eval()  # dropout of zero, the only one upstream allows, still costs time
        rng = np.random.default_rng([step, 17])
        x = self._variates(torch.from_numpy(windows), rng)
        patch, known = self.size.patch, x[..., : -self.size.patch]
        seen, visible = self._seen(x, rng), self._visible(x, rng)
        # the optimisers are indifferent to the scale of a gradient, which is all that upstream's bring
        with exact_gradients():
            quantiles, loc, scale = model(known * seen, seen, visible, torch.zeros(x.shape[:2]).long())
        target = ((x[..., patch:] - loc) / scale).clamp(-CLIP, CLIP).asinh()
        losses = pinball(quantiles.float().movedim(0, -1), target.unflatten(-1, (-1, patch))).mean(-1)
        usable = (scale[..., ::patch] > 0.05).float()  # where the history varies
        weights = usable * QUANTILES_EVERYWHERE.position_weights(losses.shape[-1])
        total = (losses * weights).sum() / weights.sum().clamp_min(1)
        return Losses(total, total)

    def _variates(self, windows: Tensor, rng: np.random.Generator) -> Tensor:
        """Windows [B, T] as series of one variate [B, 1, T], or of two [B // 2, 2, T] that are related."""
        pairs = len(windows) // 2
        if not pairs or rng.random() >= PAIRED:
            return windows[:, None]
        first, second = windows[: 2 * pairs].view(2, pairs, -1)
        share = torch.from_numpy(rng.uniform(-1, 1, (pairs, 1))).float()
        return torch.stack([first, share * first + (1 - share.abs()) * second], 1)

    def _seen(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Observed steps of the input, bool [B, V, T - patch].

        A history need not fill its first patch: it is padded in front.
        """
        patch = self.size.patch
        padding = np.where(rng.random(len(x)) < 0.5, rng.integers(0, patch, len(x)), 0)
        observed = np.arange(x.shape[-1] - patch)[None] >= padding[:, None]
        return torch.from_numpy(observed)[:, None].expand(-1, x.shape[1], -1)

    def _visible(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Steps of the input that are not hidden, bool [B, V, T - patch]."""
        count = x.shape[-1] // self.size.patch - 1
        hidden = hidden_runs(len(x), count, self.size.future // self.size.patch, rng)
        steps = torch.from_numpy(~hidden).repeat_interleave(self.size.patch, 1)
        return steps[:, None].expand(-1, x.shape[1], -1)

    def export(self, model: nn.Module, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        metadata = {"format": "pt", MAX_CONTEXT: str(self.size.context)}
        save_file(model.state_dict(), directory / "model.safetensors", metadata=metadata)
        settings = dataclasses.asdict(config(self.size))
        (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def hidden_runs(count: int, patches: int, longest: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which patches to hide, [count, patches]: a run at the end, one anywhere, both or none; never the first.

    Lengths up to `longest` are drawn on a logarithmic scale, since short horizons are asked for most.
    """
    position = np.arange(patches)[None]
    length = np.exp(rng.uniform(0, np.log(longest + 1), (2, count, 1))).astype(int)
    used = rng.random((2, count, 1)) < HIDDEN
    start = rng.integers(1, patches, (count, 1))
    last = position >= patches - length[0]
    elsewhere = (position >= start) & (position < start + length[1])
    hidden: NDArray[np.bool_] = ((last & used[0]) | (elsewhere & used[1])) & (position > 0)
    return hidden
