"""What heads attend to on real windows: how sharply, how far back, whether at the dominant period.

1. Every window is run once (`teacher_forced`), and each map that is applied is reduced on the spot
   to sums per head and window: maps are never kept.
2. Windows are averaged within their series, and these within their
   configuration; intervals are over configurations.

Every share has its null beside it: the same share if the head attended evenly to the keys it may see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import PER_CONFIGURATION, SAMPLED_BATCH, Owners, batched, sampled
from tsprune.explain.forecast_traits import dominant_period
from tsprune.hooks.attention import AttentionMap, require_heads, watching
from tsprune.models.forecaster import Forecaster

STATISTICS = (
    "sharpness",
    "entropy",
    "effective_keys",
    "lag",
    "lag_spread",
    "diagonal",
    "diagonal_uniform",
    "period_share",
    "period_share_uniform",
    "untimed",
)


@dataclasses.dataclass(frozen=True)
class AttentionStatistics:
    """Attention of every head over a set of windows.

    heads : one row a head: address, stack, layer, attention, head, windows (in which the head had a
        choice of keys), then each of `STATISTICS` with its 95 % interval (`_low`, `_high`):
        sharpness : 1 - H / log(keys), H the entropy of a row of attention, over the keys it may see
        entropy, effective_keys : H in nats, and exp(H)
        lag, lag_spread : mean and standard deviation of the distance |query - key|, in time steps
        diagonal : share of attention within one position of the query's own time
        period_share : share at positive multiples of the context's dominant period, to half a position;
            NaN where positions are too coarse to tell the period (two of them are longer)
        untimed : share on positions without a time (registers, end of sequence)
        diagonal_uniform, period_share_uniform : the same of a head that attends evenly
    profile : lag profile, one row a head and lag: address, lag (query minus key, in time steps), mass
        (mean share of attention; with `untimed` it sums to 1) and uniform (the same of an even head)
    """

    heads: pd.DataFrame
    profile: pd.DataFrame


@checked
def attention(
    model: Forecaster,
    suite: Suite,
    *,
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = SAMPLED_BATCH,
    seed: int = 0,
) -> AttentionStatistics:
    """Attention statistics of every head of `model` on windows of a suite.

    per_configuration : at most so many windows of each configuration, evenly spread
    seed : of the bootstrap

    Sharpness as in arXiv 2602.01605. Heads that attend over series, or whose queries have one key only
    (a one-token decoder's self-attention), have no statistics (NaN).

    Raises TspruneError for a suite without windows, or a model that was pruned of all its heads.
    """
    suite.require_windows()
    require_heads(model)
    chosen = sampled(suite, model, per_configuration)
    sums = _Sums(model, len(chosen))
    owners = Owners()
    for batch in batched(chosen, model, batch_size):
        sums.start(batch.first, [dominant_period(context) for context in batch.contexts])
        owners.add(batch)
        with torch.no_grad(), watching(model, sums.add):
            model.teacher_forced(batch.contexts)
    return AttentionStatistics(_heads(model, sums, owners, seed), sums.profiles())


class _Sums:
    """Sums of the statistics of each head and window, [windows, heads of a sublayer]."""

    def __init__(self, model: Forecaster, windows: int) -> None:
        self._windows = windows
        self._anatomy = model.anatomy
        self._totals: dict[tuple[Component, str], NDArray[np.float64]] = {}
        self._counts: dict[tuple[Component, str], NDArray[np.float64]] = {}
        self._mass: dict[Component, dict[float, NDArray[np.float64]]] = {}
        self._rows: dict[Component, NDArray[np.float64]] = {}
        self._first = 0
        self._periods: Sequence[float] = ()
        self._calls: dict[Component, int] = {}

    def start(self, first: int, periods: Sequence[float]) -> None:
        """A new batch: `periods` are its windows' dominant periods."""
        self._first, self._periods, self._calls = first, periods, {}

    def add(self, found: AttentionMap) -> None:
        """Adds the rows of one call; rows of a batch follow each other, pass after pass."""
        site = found.component
        if self._anatomy.site(site).axis != "time":
            return
        done = self._calls.get(site, 0)
        self._calls[site] = done + len(found.weights)
        rows = (done + np.arange(len(found.weights))) % len(self._periods)
        axis = self._anatomy.key_stack(site).time
        span = axis.span if axis is not None else 1
        periods = torch.tensor(self._periods)[torch.from_numpy(rows)]
        counted = found.counted
        for name, values in statistics_of_rows(found, span, periods).items():
            known = counted & values.isfinite()
            total = torch.where(known, values, 0).sum(-1).double().numpy(force=True)
            self._put(self._totals, site, name, rows, total)
            self._put(self._counts, site, name, rows, known.sum(-1).double().numpy(force=True))
        self._profile(found, counted)

    def _put(
        self,
        store: dict[tuple[Component, str], NDArray[np.float64]],
        site: Component,
        name: str,
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        table = store.setdefault((site, name), np.zeros((self._windows, values.shape[1])))
        np.add.at(table, self._first + rows, values)

    def _profile(self, found: AttentionMap, counted: Tensor) -> None:
        queries, keys = found.times
        lags = (queries[:, None] - keys[None, :]).flatten()
        timed = lags.isfinite()
        even = _even(found)
        masses = [torch.einsum("nhqk,nhq->hqk", w, counted.float()).flatten(1) for w in (found.weights, even)]
        values, which = lags[timed].unique(return_inverse=True)
        sums = [torch.zeros(len(m), len(values)).index_add_(1, which, m[:, timed].cpu()) for m in masses]
        both = torch.stack(sums, -1).double().numpy()  # [heads, lags, (mass, uniform)]
        at = self._mass.setdefault(found.component, {})
        for index, lag in enumerate(values.tolist()):
            at[lag] = at[lag] + both[:, index] if lag in at else both[:, index]
        total = counted.sum((0, 2)).double().numpy(force=True)
        before = self._rows.get(found.component, np.zeros_like(total))
        self._rows[found.component] = before + total

    def means(self, site: Component, name: str) -> NDArray[np.float64]:
        """[windows, heads], NaN where a head had no row that counts."""
        heads = self._anatomy.site(site).heads
        empty = np.zeros((self._windows, heads))
        counts = self._counts.get((site, name), empty)
        return np.divide(
            self._totals.get((site, name), empty), counts, out=np.full_like(empty, np.nan), where=counts > 0
        )

    def profiles(self) -> pd.DataFrame:
        parts = []
        for site, masses in self._mass.items():
            lags = sorted(masses)
            if not lags:  # positions without times
                continue
            values = np.stack([masses[lag] for lag in lags], axis=1)  # [heads, lags, 2]
            numbers = self._anatomy.site(site).numbers
            for head, rows, own in zip(numbers, self._rows[site], values, strict=True):
                if rows == 0:
                    continue
                mass, uniform = own.T / rows
                address = dataclasses.replace(site, head=head).address
                parts.append(
                    pd.DataFrame({"address": address, "lag": lags, "mass": mass, "uniform": uniform})
                )
        empty = pd.DataFrame(columns=["address", "lag", "mass", "uniform"])
        return pd.concat(parts, ignore_index=True) if parts else empty


def _even(found: AttentionMap) -> Tensor:
    """The map of a head that attends evenly to the keys it may see, [N, heads, Q, K]."""
    allowed = found.allowed.expand_as(found.weights)
    return allowed / allowed.sum(-1, keepdim=True).clamp_min(1)


def statistics_of_rows(found: AttentionMap, span: int, periods: Tensor) -> dict[str, Tensor]:
    """Each of `STATISTICS`, [N, heads, Q], NaN where undefined.

    span : time steps a key stands for; periods : [N], of the rows' windows, in steps
    """
    weights, even = found.weights, _even(found)
    queries, keys = found.times
    distance = (queries[:, None] - keys[None, :]).abs()
    timed = distance.isfinite()
    distance = distance.nan_to_num()
    share = (weights * timed).sum(-1)
    near = timed & (distance <= span)
    lag = (weights * timed * distance).sum(-1) / share
    square = (weights * timed * distance**2).sum(-1) / share
    seasonal = timed & _at_multiples(distance, periods, span)  # [N, 1, Q, K]
    told = torch.where(periods >= 2 * span, 0.0, torch.nan)[:, None, None]
    return {
        "sharpness": found.sharpness,
        "entropy": found.entropy,
        "effective_keys": found.entropy.exp(),
        "lag": lag,
        "lag_spread": (square - lag**2).clamp_min(0).sqrt(),
        "diagonal": (weights * near).sum(-1),
        "diagonal_uniform": (even * near).sum(-1),
        "period_share": (weights * seasonal).sum(-1) + told,
        "period_share_uniform": (even * seasonal).sum(-1) + told,
        "untimed": (weights * ~timed).sum(-1),
    }


def _at_multiples(distance: Tensor, periods: Tensor, span: int) -> Tensor:
    """Whether distances [Q, K] are positive multiples of `periods` [N], to half a position."""
    period = periods.nan_to_num(nan=1.0)[:, None, None, None]
    multiple = (distance / period).round()
    # strictly within: half-way between two positions is at neither
    near = (distance - multiple * period).abs() < span / 2
    return near & (multiple >= 1)


def _heads(model: Forecaster, sums: _Sums, owners: Owners, seed: int) -> pd.DataFrame:
    parts = []
    for site, described in model.anatomy.sites():
        if not described.heads:
            continue
        columns: dict[str, object] = {
            "address": [dataclasses.replace(site, head=head).address for head in described.numbers],
            "stack": site.stack,
            "layer": site.layer,
            "attention": site.attention,
            "head": described.numbers,
            "windows": np.isfinite(sums.means(site, "entropy")).sum(0),
        }
        for name in STATISTICS:
            found = owners.sample(sums.means(site, name)).estimates(seed=seed)
            columns |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
