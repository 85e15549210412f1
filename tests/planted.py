"""A one-layer model whose heads are built by hand: head 0 copies from `LAG` steps ago, head 1 averages.

One position a time step, the context's and then those of the horizon, whose value is unknown (0); every
query may see every key. With T positions and x the values (0 in the horizon):
head 0 reads x[t - LAG] (its own x[t] where t < LAG), head 1 the mean of all x.
The forecast at t is COPY * head 0 + AVERAGE * head 1 + BIAS: half a copy of the past, say. With a `trend`
the MLP adds as much more at every position, so that something is left to be seen without the heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Projection, Readout, Stack, TimeAxis
from tsprune.models.contexts import checked_contexts
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster

LAG, COPY, AVERAGE, BIAS = 6, 0.75, 0.5, 0.125
POSITIONS = 64
VALUE, OUTPUT, WIDTH = 0, 1, 2 + POSITIONS  # the residual stream: value, forecast, one-hot position
SHARP = 60.0


class Attention(nn.Module):
    """Two heads of POSITIONS dimensions; values are in the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, 2 * POSITIONS, bias=False) for _ in range(3))
        self.o = nn.Linear(2 * POSITIONS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads = [layer(x).unflatten(-1, (2, POSITIONS)).transpose(1, 2) for layer in (self.q, self.k, self.v)]
        mixed = nn.functional.scaled_dot_product_attention(*heads, scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer()])
        self.readout = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, values: Tensor, horizon: int) -> Tensor:
        """[B, T], NaN-free, to [B, horizon]."""
        x = torch.zeros(len(values), values.shape[1] + horizon, WIDTH)
        x[:, : values.shape[1], VALUE] = values
        x[..., 2:] = torch.eye(POSITIONS)[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.readout(x[:, -horizon:])[..., 0]


def _plant(network: Network, trend: float) -> None:
    attention = network.layers[0].attention
    for parameter in network.parameters():
        parameter.data.zero_()
    for position in range(POSITIONS):
        source = position - LAG if position >= LAG else position
        attention.q.weight.data[source, 2 + position] = SHARP
        for head in range(2):
            attention.k.weight.data[head * POSITIONS + position, 2 + position] = 1
    for head, share in enumerate((COPY, AVERAGE)):
        attention.v.weight.data[head * POSITIONS, VALUE] = 1
        attention.o.weight.data[OUTPUT, head * POSITIONS] = share
    attention.o.bias.data[OUTPUT] = BIAS
    network.layers[0].mlp.weight.data[OUTPUT, 2:] = trend * torch.arange(POSITIONS)
    network.readout.weight.data[0, OUTPUT] = 1


class Planted(Forecaster):
    name = family = "planted"
    context_length = 48

    def __init__(self, trend: float = 0.0) -> None:
        self.module = Network().eval()
        _plant(self.module, trend)
        path = "layers.0.attention"
        query, key, value = (Projection(f"{path}.{name}", 2, POSITIONS) for name in "qkv")
        site = AttentionSite("self", path, f"{path}.o", 2, POSITIONS, query, key, value)
        block = Block("layers.0", (site,), MLPSite("layers.0.mlp"))
        stack = Stack("stack", (block,), time=TimeAxis(1, future=1))
        self.anatomy = Anatomy((stack,), WIDTH, readout=Readout(("readout",)))
        self.upstream = self.module

    def _run(self, contexts: Sequence[ArrayLike], horizon: int) -> Tensor:
        series = [np.nan_to_num(x[-self.context_length :]) for x in checked_contexts(contexts, horizon)]
        output: Tensor = self.module(torch.from_numpy(np.stack(series)), horizon)
        return output

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        """Contexts of one length."""
        with torch.no_grad():
            median = self._run(contexts, horizon).numpy()
        return Forecast(np.repeat(median[:, None], len(LEVELS), axis=1))

    def teacher_forced(self, contexts: Sequence[ArrayLike]) -> Tensor:
        """The forecast of the next step, [B, 1]."""
        return self._run(contexts, 1)

    def save(self, directory: Path) -> None:
        raise NotImplementedError
