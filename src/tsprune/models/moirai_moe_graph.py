"""Moirai-MoE as one graph from scaled patches to the mixture of the next patch, for export."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from uni2ts.module.ffn import MoEFeedForward

from tsprune.models.contexts import MOST_STEPS
from tsprune.models.graph_ops import MOST_ROWS
from tsprune.models.graph_program import GraphInput, GraphProgram
from tsprune.models.moirai2_graph import attend_within_a_variate
from tsprune.models.moirai_graph import MixtureReadout, of_one_size, scaling_of
from tsprune.models.moirai_moe import MoiraiMoE
from tsprune.models.sampled_passes import PassSampling

_WIDTH = 2048


class AllExperts(nn.Module):
    """Upstream's experts, all of them at every position: those that are not chosen there have weight 0.

    A graph has no tensors whose sizes depend on values, such as the positions that chose an expert. So it
    computes all experts where upstream computes some. Several side by side are one gated MLP, whose hidden
    values are multiplied by the weight of their expert.

    width : of the hidden values that are computed at once, at most; at least those of one expert
    """

    def __init__(self, chosen: Any, width: int = _WIDTH) -> None:
        super().__init__()
        experts: list[Any] = list(chosen.experts)
        self.count, self.hidden = chosen.num_experts_per_token, experts[0].hidden_dim
        self.activation = experts[0].activation
        self.each = max(1, width // self.hidden)
        groups = [experts[first : first + self.each] for first in range(0, len(experts), self.each)]
        self.groups = nn.ModuleList(
            nn.ModuleDict({name: _side_by_side(group, name) for name in ("fc_gate", "fc1", "fc2")})
            for group in groups
        )

    def forward(self, x: Tensor, centroid: Tensor) -> Tensor:
        """x [..., width], centroid [experts, width]; upstream chooses the experts that are farthest."""
        centers = centroid.to(x.dtype)
        products = functional.linear(x, centers)
        squares = x.square().sum(-1, keepdim=True) + centers.square().sum(-1) - 2 * products
        distances, chosen = squares.clamp(min=0).sqrt().topk(self.count)
        shares = distances.softmax(-1)[..., None]
        weights = torch.where(chosen[..., None] == torch.arange(len(centroid)), shares, 0.0).sum(-2)
        found = torch.zeros_like(x)
        for number, group in enumerate(cast(Any, self.groups)):
            hidden = self.activation(group["fc_gate"](x)) * group["fc1"](x)
            own = weights[..., number * self.each : (number + 1) * self.each, None]
            hidden = (hidden.unflatten(-1, (-1, self.hidden)) * own).flatten(-2)
            found = found + group["fc2"](hidden)
        return found


def _side_by_side(experts: list[Any], name: str) -> nn.Linear:
    """A layer of several experts as one: outputs side by side, or inputs if it is the last, "fc2"."""
    weight = torch.cat([getattr(expert, name).weight for expert in experts], dim=int(name == "fc2"))
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    found.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    return found


class MoiraiMoEGraph(nn.Module):
    """Scaled patches [B, N, P] to the mixture over the patch after them.

    Other inputs are which patches are real and which time each is at, [B, N]. Weights are [B, P, K], and
    parameters, of one component after the other, [B, P, n]. A later patch is not seen by those before it, so
    those of the horizon are left out until they are drawn.
    """

    step = None

    def __init__(self, model: MoiraiMoE, horizon: int | None) -> None:
        super().__init__()
        network: Any = copy.deepcopy(model.module)
        self.patch, self.ahead = model.patch, -(-MOST_STEPS // model.patch)
        attend_within_a_variate(network, -(-model.context_length // self.patch) + self.ahead)
        for layer in network.encoder.layers:
            if isinstance(layer.ffn, MoEFeedForward):
                layer.ffn = AllExperts(layer.ffn)
        self.encoder = network.encoder
        size, width = list(network.patch_sizes).index(self.patch), network.d_model
        self.embed = of_one_size(network.in_proj, size, self.patch)
        self.features = of_one_size(network.feat_proj, size, width)
        self.residual = of_one_size(network.res_proj, size, self.patch)
        self.readout = MixtureReadout(network, self.patch)
        self.sampling = PassSampling(
            samples=model.samples,
            seed=model.seed,
            steps=self.patch,
            patch=self.patch,
            components=self.readout.components,
            **scaling_of(network),
        )

    def forward(self, patches: Tensor, sample: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.features(functional.silu(self.embed(patches))) + self.residual(patches)
        mask = (sample[:, None] == sample[:, :, None]) & (time[:, None] <= time[:, :, None])
        hidden = self.encoder(hidden, mask, time_id=time, var_id=torch.zeros_like(time))
        return cast(tuple[Tensor, Tensor], self.readout(hidden[:, -1:]))

    def programs(self, length: int) -> tuple[GraphProgram, ...]:
        """The graph, for histories of up to `length` steps and what is drawn after them."""
        most = -(-length // self.patch) + self.ahead
        limits = {"batch": (1, MOST_ROWS), "patches": (1, most)}
        rows = {0: "batch", 1: "patches"}
        patches = torch.linspace(0, 1, 6 * self.patch).reshape(2, 3, self.patch).sin()
        inputs = {
            "patches": GraphInput(patches, rows),
            "sample": GraphInput(torch.ones(2, 3, dtype=torch.bool), rows),
            "time": GraphInput(torch.arange(3).expand(2, 3).contiguous(), rows),
        }
        return (GraphProgram(self, inputs, ("weights", "parameters"), limits),)
