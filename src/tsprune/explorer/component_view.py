"""One head or MLP on the chosen series: its attention, by lag, and its writes to the residual stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.explain.attention_maps import statistics_of_rows
from tsprune.explain.attribution.contributions import contributions
from tsprune.explain.attribution.writers import recorded_writes
from tsprune.explain.window_means import span_of
from tsprune.explorer.chosen_series import ChosenSeries
from tsprune.hooks.ablation import Ablation, applied
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.hooks.capture import Reference
from tsprune.models.forecaster import Forecaster
from tsprune.statistics.estimate import Array

MOST_POSITIONS = 128  # of a map that is sent to a page


@dataclasses.dataclass(frozen=True)
class Attention:
    """Attention of one head over one series.

    weights : float [Q, K], rows sum to 1, or to 0 without an allowed key
    queries, keys : [Q] and [K], time in steps after the end of the series, NaN without one
    span : steps of a key
    lags, mass, uniform : [L], time of the query minus that of the key, mean attention there, and that of a
        head that attends evenly
    statistics : means over rows of `tsprune.explain.attention_maps.ROW_STATISTICS`
    """

    weights: NDArray[np.float32]
    queries: NDArray[np.float32]
    keys: NDArray[np.float32]
    span: int
    lags: Array
    mass: Array
    uniform: Array
    statistics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Writing:
    """Writes of one component to the residual stream.

    times : [T] of the positions, in steps after the end of the context, NaN without one
    strength : [T], norm of the write over the norm of the last layer's stream
    direction : [T], cosine of the angle between write and stream: below 0 it takes away
    share : of the forecast, by direct attribution; NaN if the component does not write to the last stack, or
        has no attribution
    """

    times: NDArray[np.float32]
    strength: Array
    direction: Array
    share: float


@dataclasses.dataclass(frozen=True)
class ComponentView:
    """attention : None for an MLP, and for a head that attends over series"""

    attention: Attention | None
    writing: Writing


def component_view(
    model: Forecaster,
    series: ChosenSeries,
    component: Component,
    ablation: Ablation,
    reference: Reference | None = None,
    *,
    shares: Mapping[str, float] = MappingProxyType({}),
    positions: int = MOST_POSITIONS,
) -> ComponentView:
    """A head or an MLP on a series, while the components of `ablation` are off.

    shares : see `direct_shares`
    positions : of the attention map, at most; neighbours are joined beyond

    Where a family runs several passes over a series, the first one counts.
    """
    maps: list[AttentionMap] = []
    site = dataclasses.replace(component, head=None)

    def look(found: AttentionMap) -> None:
        if found.component == site and not maps:
            maps.append(found)

    wanted = component.head is not None and model.anatomy.site(component).axis == "time"
    stack = model.anatomy.stack(component.stack)
    with torch.no_grad(), applied(model, ablation, reference=reference):
        seen = watching(model, look) if wanted else nullcontext()
        with recorded_writes(model, stack, 1) as writes, seen:
            output = model.teacher_forced([series.context.copy()])
        stream = writes.stream(slice(None))[0].float()
        written = next(p for p in writes.parts(slice(None)) if p.name == component.address).written[0].float()
    # a model of tokens is given the last steps one by one: its times start before them
    late = output.shape[1] if model.anatomy.tokens else 0
    attention = _attention(model, maps[0], component, series, positions, late) if maps else None
    share = shares.get(component.address, float("nan"))
    return ComponentView(attention, _writing(model, component, written, stream, share, late))


def without_one(ablation: Ablation, component: Component) -> Ablation:
    """`ablation` with `component` on."""
    return dataclasses.replace(ablation, components=tuple(c for c in ablation.components if c != component))


def direct_shares(
    model: Forecaster, series: ChosenSeries, ablation: Ablation, reference: Reference | None = None
) -> dict[str, float]:
    """Shares of the forecast by direct attribution, by address, while the components of `ablation` are off.

    Empty without a description of the model's readout, and where the attribution is not complete.
    """
    try:
        with applied(model, ablation, reference=reference):
            found = contributions(model, [series.context.copy()])
    except TspruneError:
        return {}
    return dict(zip((*found.names, *found.sources), found.shares[0].tolist(), strict=True))


def _writing(
    model: Forecaster, component: Component, written: Tensor, stream: Tensor, share: float, late: int
) -> Writing:
    axis = model.anatomy.stack(component.stack).time
    count = len(written)
    times = np.full(count, np.nan) if axis is None else np.array(axis.times(count)) - late
    strength = written.norm(dim=-1) / stream.norm(dim=-1).clamp_min(1e-12)
    direction = torch.cosine_similarity(written, stream, dim=-1)
    norms, cosines = (x.double().numpy(force=True) for x in (strength, direction))
    return Writing(times.astype(np.float32), norms, cosines, share)


def _attention(
    model: Forecaster,
    found: AttentionMap,
    component: Component,
    series: ChosenSeries,
    positions: int,
    late: int,
) -> Attention:
    assert component.head is not None
    place = model.anatomy.site(component).position(component.head)
    span = span_of(model.anatomy.key_stack(component))
    one = dataclasses.replace(
        found,
        weights=found.weights[:1, place : place + 1],
        allowed=found.allowed.expand_as(found.weights)[:1, place : place + 1],
        value=found.value[:1, place : place + 1],
    )
    counted = one.counted
    rows = statistics_of_rows(one, span, torch.tensor([series.period]))
    means = {name: _mean(values, counted & values.isfinite()) for name, values in rows.items()}
    weights, allowed = one.weights[0, 0], one.allowed[0, 0]
    queries, keys = (times.numpy(force=True) - late for times in found.times)
    lags, mass, uniform = _by_lag(weights, allowed, counted[0, 0], one.lags)
    return Attention(
        *_joined(weights.float().numpy(force=True), queries, keys, positions),
        span=span * -(-len(keys) // positions),
        lags=lags,
        mass=mass,
        uniform=uniform,
        statistics=means,
    )


def _mean(values: Tensor, counted: Tensor) -> float:
    return float(values[counted].double().mean()) if bool(counted.any()) else float("nan")


def _by_lag(weights: Tensor, allowed: Tensor, counted: Tensor, lags: Tensor) -> tuple[Array, Array, Array]:
    """Lags with a time, and mean attention there of this head and of one that attends evenly."""
    rows = max(1, int(counted.sum()))
    even = allowed / allowed.sum(-1, keepdim=True).clamp_min(1)
    timed = (lags.isfinite() & counted[:, None] & allowed).flatten()
    values, which = lags.flatten()[timed].unique(return_inverse=True)
    sums = [
        torch.zeros(len(values), dtype=torch.float64, device=which.device).index_add_(
            0, which, x.flatten()[timed].double()
        )
        for x in (weights, even)
    ]
    mass, uniform = (x.numpy(force=True) / rows for x in sums)
    return values.double().numpy(force=True), mass, uniform


def _joined(
    weights: NDArray[np.float32], queries: NDArray[np.float32], keys: NDArray[np.float32], most: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """A map of at most `most` queries and keys: means over queries, sums over keys, last times."""
    for axis, times in ((0, queries), (1, keys)):
        step = -(-len(times) // most)
        if step > 1:
            # from the end, so that the last position is whole
            edges = np.arange(len(times) % step, len(times), step)
            edges = edges if edges[0] == 0 else np.concatenate([[0], edges])
            sums: Any = np.add.reduceat(weights, edges, axis=axis)
            weights = np.asarray(sums, dtype=np.float32)
            ends = np.append(edges[1:], len(times))
            if axis == 0:
                weights = np.asarray(weights / (ends - edges)[:, None], dtype=np.float32)
                queries = queries[ends - 1]
            else:
                keys = keys[ends - 1]
    return weights, queries, keys
