"""Moirai 1.1 as one graph from scaled patches to the mixtures of the horizon, for export."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from uni2ts.distribution import (
    LogNormalOutput,
    NegativeBinomialOutput,
    NormalFixedScaleOutput,
    NormalOutput,
    StudentTOutput,
)
from uni2ts.module.packed_scaler import PackedStdScaler

from tsprune.models.contexts import MOST_STEPS
from tsprune.models.graph_ops import MOST_ROWS
from tsprune.models.graph_program import GraphInput, GraphProgram
from tsprune.models.moirai import Moirai
from tsprune.models.moirai2_graph import attend_within_a_variate
from tsprune.models.sampled_horizon import HorizonSampling

_NAMES = {  # of distributions and their parameters, in order
    StudentTOutput: ("student_t", "df", "loc", "scale"),
    NormalOutput: ("normal", "loc", "scale"),
    NormalFixedScaleOutput: ("normal", "loc"),
    LogNormalOutput: ("log_normal", "loc", "scale"),
    NegativeBinomialOutput: ("negative_binomial", "total_count", "logits"),
}


def of_one_size(layer: Any, size: int, columns: int, rows: Any = slice(None)) -> nn.Linear:
    """The rows and first columns of a layer of many sizes, for one of them."""
    weight = layer.weight[size] * getattr(layer, "mask", torch.ones(layer.weight.shape[0]))[size]
    weight = weight[rows, :columns]
    found = nn.Linear(columns, len(weight), device="meta")
    found.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    found.bias = nn.Parameter(layer.bias[size][rows].detach().clone(), requires_grad=False)
    return found


class MixtureReadout(nn.Module):
    """The stream at F tokens [B, F, width] to mixtures over their steps, for one patch size.

    Weights are [B, F * P, K], and parameters, of one component after the other, [B, F * P, N].

    components : their names, as in `sampled_mixtures`
    """

    def __init__(self, network: Any, patch: int) -> None:
        super().__init__()
        self.patch = patch
        size, most = list(network.patch_sizes).index(patch), max(network.patch_sizes)
        output, heads = network.distr_output, network.param_proj.proj
        self.outputs: list[Any] = list(getattr(output, "components", [output]))
        self.components = tuple(_NAMES[type(one)][0] for one in self.outputs)

        def of_patch(layer: Any) -> nn.Linear:
            rows = torch.arange(layer.weight.shape[1]).unflatten(0, (-1, most))[:, :patch].flatten()
            return of_one_size(layer, size, layer.in_features, rows)

        parts = list(heads["components"]) if "components" in heads else [heads]
        self.parts = nn.ModuleList(
            nn.ModuleDict({name: of_patch(layer) for name, layer in part.items()}) for part in parts
        )
        self.weights = of_patch(heads["weights_logits"]) if "weights_logits" in heads else None

    def forward(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        found: list[Tensor] = []
        for output, part in zip(self.outputs, cast(Any, self.parts), strict=True):
            names = _NAMES[type(output)][1:]
            found += [output.domain_map[name](self._steps(part[name], stream)) for name in names]
            if isinstance(output, NormalFixedScaleOutput):
                found.append(torch.full_like(found[-1], output.scale))
        parameters = torch.stack(found, dim=-1).flatten(1, 2)
        if self.weights is None:
            return torch.ones_like(parameters[..., :1]), parameters
        return self._steps(self.weights, stream).softmax(dim=-1).flatten(1, 2), parameters

    def _steps(self, layer: Any, stream: Tensor) -> Tensor:
        """The outputs of a layer by step, [B, F, P, N]."""
        found: Tensor = layer(stream).unflatten(-1, (-1, self.patch)).transpose(-1, -2)
        return found


def scaling_of(network: Any) -> dict[str, Any]:
    """How a network scales series, as the fields of `HorizonSampling`."""
    scaler = network.scaler
    scales = isinstance(scaler, PackedStdScaler)
    return {
        "scales": scales,
        "correction": scaler.correction if scales else 0,
        "least_variance": scaler.minimum_scale if scales else 0.0,
    }


class MoiraiGraph(nn.Module):
    """Scaled patches [B, N, P] to mixtures over the steps of F tokens after them.

    Other inputs are which patches are real and which time each is at, [B, N], and F zeros.
    """

    step = None

    def __init__(self, model: Moirai, horizon: int | None) -> None:
        super().__init__()
        network: Any = copy.deepcopy(model.module)
        self.patch = self.future_span = model.patch
        history = -(-model.context_length // self.patch)
        attend_within_a_variate(network, history - (-MOST_STEPS // self.patch))
        self.encoder, self.masked = network.encoder, network.mask_encoding
        size = list(network.patch_sizes).index(self.patch)
        self.embed = of_one_size(network.in_proj, size, self.patch)
        self.readout = MixtureReadout(network, self.patch)
        self.sampling = HorizonSampling(
            samples=model.samples,
            seed=model.seed,
            steps=model.reference_horizon,
            patch=self.patch,
            components=self.readout.components,
            **scaling_of(network),
        )

    def forward(self, patches: Tensor, sample: Tensor, time: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
        ahead = torch.arange(future.shape[0])[None].expand(patches.shape[0], -1)
        time = torch.cat([time, time[:, -1:] + 1 + ahead], dim=1)
        sample = torch.cat([sample, torch.ones_like(ahead, dtype=torch.bool)], dim=1)
        masked = self.masked.weight[None].expand(*ahead.shape, -1)
        mask = sample[:, None] == sample[:, :, None]
        hidden = torch.cat([self.embed(patches), masked], dim=1)
        hidden = self.encoder(hidden, mask, time_id=time, var_id=torch.zeros_like(time))
        return cast(tuple[Tensor, Tensor], self.readout(hidden[:, patches.shape[1] :]))

    def programs(self, length: int) -> tuple[GraphProgram, ...]:
        """The graph, for histories of up to `length` steps."""
        most, ahead = -(-length // self.patch), -(-MOST_STEPS // self.patch)
        limits = {"batch": (1, MOST_ROWS), "patches": (1, max(most, 4)), "ahead": (1, ahead)}
        patches = torch.linspace(0, 1, 6 * self.patch).reshape(2, 3, self.patch).sin()
        rows = {0: "batch", 1: "patches"}
        inputs = {
            "patches": GraphInput(patches, rows),
            "sample": GraphInput(torch.ones(2, 3, dtype=torch.bool), rows),
            "time": GraphInput(torch.arange(3).expand(2, 3).contiguous(), rows),
            "future": GraphInput(torch.zeros(2), {0: "ahead"}),
        }
        return (GraphProgram(self, inputs, ("weights", "parameters"), limits),)
