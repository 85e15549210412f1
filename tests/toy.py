"""A small forecaster of our own with what no supported family has: heads interleaved in a fused
projection (as in Toto), grouped queries, and a bias on the output projection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Projection, Stack
from tsprune.models.contexts import checked_contexts
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster

WIDTH, HEADS, HEAD_DIM, LAYERS = 6, 3, 4, 2


class Interleaved(nn.Module):
    """Attention whose fused projection has rows (q or k or v, dimension, head)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * HEAD_DIM)
        self.out = nn.Linear(HEADS * HEAD_DIM, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        query, key, value = self.qkv(x).view(batch, time, 3, HEAD_DIM, -1).permute(2, 0, 4, 1, 3)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, -1))


class Grouped(nn.Module):
    """Attention whose query heads all share one key and one value head."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, HEADS * HEAD_DIM)
        self.k = nn.Linear(WIDTH, HEAD_DIM)
        self.v = nn.Linear(WIDTH, HEAD_DIM)
        self.out = nn.Linear(HEADS * HEAD_DIM, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        query = self.q(x).view(batch, time, -1, HEAD_DIM).transpose(1, 2)
        key, value = (layer(x)[:, None].expand_as(query) for layer in (self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, -1))


class Layer(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Network(nn.Module):
    """One token per time step, the forecast read from the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, WIDTH)
        self.layers = nn.ModuleList([Layer(Interleaved()), Layer(Grouped())])
        self.readout = nn.Linear(WIDTH, len(LEVELS))

    def forward(self, series: Tensor) -> Tensor:
        x = self.embed(series[..., None])
        for layer in self.layers:
            x = layer(x)
        return self.readout(x[:, -1])


def _site(index: int) -> AttentionSite:
    path = f"layers.{index}.attention"
    if index == 0:
        fused = (
            Projection(f"{path}.qkv", HEADS, HEAD_DIM, part * HEADS * HEAD_DIM, interleaved=True)
            for part in range(3)
        )
        return AttentionSite("time", path, f"{path}.out", HEADS, HEAD_DIM, *fused)
    query = Projection(f"{path}.q", HEADS, HEAD_DIM)
    key, value = (Projection(f"{path}.{name}", 1, HEAD_DIM) for name in "kv")
    return AttentionSite("time", path, f"{path}.out", HEADS, HEAD_DIM, query, key, value)


class Toy(Forecaster):
    name = family = "toy"
    context_length = 8

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module = Network().eval()
        blocks = (Block(f"layers.{i}", (_site(i),), MLPSite(f"layers.{i}.mlp")) for i in range(LAYERS))
        self.anatomy = Anatomy((Stack("stack", tuple(blocks)),), WIDTH)
        self.upstream = self.module

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        with torch.no_grad():
            quantiles = self.teacher_forced(checked_contexts(contexts, horizon))
        return Forecast(np.repeat(quantiles.numpy()[..., None], horizon, -1))

    def teacher_forced(self, contexts: Sequence[ArrayLike]) -> Tensor:
        """Contexts of one length."""
        series = np.stack([np.asarray(x, dtype=np.float32)[-self.context_length :] for x in contexts])
        output: Tensor = self.module(torch.from_numpy(series))
        return output

    def save(self, directory: Path) -> None:
        raise NotImplementedError
