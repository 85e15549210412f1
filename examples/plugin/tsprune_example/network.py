"""PatchNet: a causal transformer over patches with a quantile head. It knows nothing of tsprune."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The sizes of a PatchNet; `context` and `horizon` are steps."""

    patch: int = 8
    context: int = 64
    horizon: int = 16
    width: int = 24
    layers: int = 3
    heads: int = 3
    hidden: int = 40


class Attention(nn.Module):
    """Causal self-attention, [B, T, width] -> [B, T, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        parts = (part(x).unflatten(-1, (self.heads, -1)) for part in (self.q, self.k, self.v))
        q, k, v = (part.transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """Attention and MLP, each after a norm."""

    def __init__(self, sizes: Settings) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(sizes.width), nn.RMSNorm(sizes.width)
        self.attention = Attention(sizes.width, sizes.heads)
        inner, outer = nn.Linear(sizes.width, sizes.hidden), nn.Linear(sizes.hidden, sizes.width)
        self.mlp = nn.Sequential(inner, nn.GELU(), outer)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class PatchNet(nn.Module):
    """The network: standardised values and their mask [B, context] -> quantiles [B, Q, horizon]."""

    def __init__(self, sizes: Settings) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed = nn.Linear(2 * sizes.patch, sizes.width)
        self.position = nn.Parameter(torch.randn(sizes.context // sizes.patch, sizes.width))
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width)
        self.head = nn.Linear(sizes.width, len(LEVELS) * sizes.horizon)

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        patches = (x.unflatten(-1, (-1, self.sizes.patch)) for x in (values, known))
        x: Tensor = self.embed(torch.cat([*patches], -1)) + self.position
        for block in self.blocks:
            x = block(x)
        quantiles: Tensor = self.head(self.norm(x[:, -1])).unflatten(-1, (len(LEVELS), -1))
        return quantiles

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes config.json and model.safetensors."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        config = {"patchnet": dataclasses.asdict(self.sizes)}
        (Path(directory) / "config.json").write_text(json.dumps(config))
        save_file(self.state_dict(), Path(directory) / "model.safetensors")


class PatchPipeline:
    """What users of PatchNet work with."""

    def __init__(self, network: PatchNet) -> None:
        self.network = network.eval()

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> PatchPipeline:
        """Loads what `PatchNet.save_pretrained` wrote."""
        sizes = json.loads((Path(directory) / "config.json").read_text())["patchnet"]
        network = PatchNet(Settings(**sizes))
        network.load_state_dict(load_file(Path(directory) / "model.safetensors"))
        return cls(network)

    def standardised(self, contexts: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values and mask [B, context] (0 where unknown), and mean and scale [B, 1] of each series."""
        length, weight = self.network.sizes.context, self.network.head.weight
        rows = [np.pad(x[-length:], (max(0, length - len(x)), 0), constant_values=np.nan) for x in contexts]
        x = torch.from_numpy(np.stack(rows)).to(weight)
        mean = x.nanmean(-1, keepdim=True)
        scale = ((x - mean) ** 2).nanmean(-1, keepdim=True).sqrt() + 1e-3
        return ((x - mean) / scale).nan_to_num(0.0), x.isfinite().to(x), mean, scale

    @torch.no_grad()
    def predict(self, contexts: Sequence[NDArray[np.float32]], horizon: int) -> Tensor:
        """Quantiles [B, Q, horizon]; beyond one pass, the median is fed back."""
        values, known, mean, scale = self.standardised(contexts)
        parts: list[Tensor] = []
        while sum(part.shape[-1] for part in parts) < horizon:
            parts.append(self.network(values, known))
            median = parts[-1][:, LEVELS.index(0.5)]
            values = torch.cat([values, median], -1)[:, -values.shape[1] :]
            known = torch.cat([known, torch.ones_like(median)], -1)[:, -known.shape[1] :]
        return torch.cat(parts, -1)[..., :horizon] * scale[:, None] + mean[:, None]
