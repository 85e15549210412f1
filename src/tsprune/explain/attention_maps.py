"""Attention of heads on real windows: sharpness, distance in time, and share at the dominant period.

1. Each window is run once (`teacher_forced`). Every attention map is reduced at once to sums per head and
   window, and never kept.
2. Windows are averaged within their series, and series within their configuration. Intervals are over
   configurations.

Each share of attention has its null beside it: the share of a head that attends evenly to all visible keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsprune.anatomy import Anatomy, Component
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import PER_CONFIGURATION, Owners, SampledWindows
from tsprune.explain.forecast_traits import dominant_period
from tsprune.explain.window_means import RowMeans, of_batches, span_of
from tsprune.hooks.attention import AttentionMap, require_heads, watching
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, estimated
from tsprune.statistics.estimate import Array

# statistic of a row of attention -> (meaning, unit)
ROW_STATISTICS = {
    "sharpness": ("1 - entropy / log(visible keys): 0 is even attention, 1 a single key", ""),
    "entropy": ("entropy of the attention over the visible keys", "nats"),
    "effective_keys": ("exp(entropy)", "keys"),
    "lag": ("mean distance |query - key|", "steps"),
    "lag_spread": ("standard deviation of that distance", "steps"),
    "diagonal": ("attention within one position of the query's time", "share"),
    "diagonal_uniform": ("diagonal of a head that attends evenly", "share"),
    "period_share": (
        "attention at positive multiples of the context's dominant period, to half a position; NaN if two "
        "positions are longer than the period",
        "share",
    ),
    "period_share_uniform": ("period_share of a head that attends evenly", "share"),
    "untimed": ("attention on positions without a time (registers, end of sequence)", "share"),
}
HEAD = (
    Column("address", "of the head", dtype="text"),
    Column("stack", "of the head", dtype="text"),
    Column("layer", "of the head", dtype="count"),
    Column("attention", "role of its sublayer", dtype="text"),
    Column("head", "number in its sublayer", dtype="count"),
)
ATTENTION_TABLE = Schema(
    "attention",
    *HEAD,
    Column("windows", "in which the head chooses between two keys or more", dtype="count"),
    *(c for name, (about, unit) in ROW_STATISTICS.items() for c in estimated(name, about, unit)),
)
LAG_PROFILE = Schema(
    "profile",
    HEAD[0],
    Column("lag", "time of the query minus time of the key", "steps"),
    Column("mass", "mean attention at this lag; with untimed these sum to 1", "share"),
    Column("uniform", "mass of a head that attends evenly", "share"),
)


@dataclasses.dataclass(frozen=True)
class AttentionStatistics:
    """Attention of every head over a set of windows.

    heads : one row per head, with intervals over configurations; columns in `ATTENTION_TABLE`
    profile : one row per head and lag; columns in `LAG_PROFILE`
    """

    heads: pd.DataFrame
    profile: pd.DataFrame


@checked
def attention(
    model: Forecaster, suite: Suite, *, per_configuration: int = PER_CONFIGURATION, **options: Unpack[Options]
) -> AttentionStatistics:
    """Attention statistics of every head of `model` on windows of a suite.

    per_configuration : windows per configuration, at most, evenly spread
    options : keywords of `tsprune.run_options.RunOptions`: `batch_size` (a quarter of it is run together)
        and `seed` (of the bootstrap)

    Sharpness follows arXiv 2602.01605. Statistics are NaN for heads that attend over series, and for heads
    whose queries see one key only (self-attention of a one-token decoder).

    Raises TspruneError for a suite without windows, or a model without attention heads.
    """
    chosen = RunOptions(**options)
    suite.require_windows()
    require_heads(model)
    owners, profile = Owners(), _LagProfile(model.anatomy)
    parts: list[RowMeans] = []

    def watched(batch: SampledWindows) -> tuple[RowMeans, _LagProfile]:
        means, profile = RowMeans(model.anatomy, len(batch.contexts)), _LagProfile(model.anatomy)
        periods = torch.tensor([dominant_period(np.asarray(context)) for context in batch.contexts])

        def add(found: AttentionMap) -> None:
            if model.anatomy.site(found.component).axis != "time":
                return
            span = span_of(model.anatomy.key_stack(found.component))
            rows = statistics_of_rows(found, span, periods[torch.from_numpy(means.windows(found))])
            means.add(found, {name: (x, found.counted & x.isfinite()) for name, x in rows.items()})
            profile.add(found)

        with torch.no_grad(), watching(model, add):
            model.teacher_forced(batch.contexts)
        return means, profile

    for means, own in of_batches(watched, model, suite, per_configuration, chosen, owners, "attention"):
        parts.append(means)
        profile.join(own)
    return AttentionStatistics(_heads(model.anatomy, parts, owners, chosen.seed), profile.frame())


class _LagProfile:
    """Attention by head and lag, summed over all rows that count."""

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._mass: dict[Component, dict[float, Array]] = {}  # sublayer -> lag -> [heads, (mass, uniform)]
        self._rows: dict[Component, Array] = {}  # sublayer -> rows that count, [heads]

    def add(self, found: AttentionMap) -> None:
        queries, keys = found.times
        lags = (queries[:, None] - keys).flatten()
        timed = lags.isfinite()
        counted = found.counted.float()
        masses = [torch.einsum("nhqk,nhq->hqk", w, counted).flatten(1) for w in (found.weights, _even(found))]
        values, which = lags[timed].unique(return_inverse=True)
        sums = [torch.zeros(len(m), len(values)).index_add_(1, which, m.cpu()[:, timed]) for m in masses]
        both = torch.stack(sums, -1).double().numpy()  # [heads, lags, 2]
        rows = found.counted.sum((0, 2)).double().numpy(force=True)
        self._sum(found.component, dict(zip(values.tolist(), both.swapaxes(0, 1), strict=True)), rows)

    def join(self, other: _LagProfile) -> None:
        """Adds all rows of another profile."""
        for site, masses in other._mass.items():
            self._sum(site, masses, other._rows[site])

    def _sum(self, site: Component, masses: Mapping[float, Array], rows: Array) -> None:
        at = self._mass.setdefault(site, {})
        for lag, mass in masses.items():
            at[lag] = at[lag] + mass if lag in at else mass
        self._rows[site] = self._rows[site] + rows if site in self._rows else rows

    def frame(self) -> pd.DataFrame:
        rows: list[dict[str, object]] = []
        for site, masses in self._mass.items():
            for place, head in enumerate(self._anatomy.site(site).numbers):
                count = self._rows[site][place]
                for lag in sorted(masses) if count else ():
                    row: dict[str, object] = {"address": f"{site}.head.{head}", "lag": lag}
                    row["mass"], row["uniform"] = masses[lag][place] / count
                    rows.append(row)
        return LAG_PROFILE.frame(rows)


def _even(found: AttentionMap) -> Tensor:
    """The map of a head that attends evenly to all visible keys, [N, heads, Q, K]."""
    allowed = found.allowed.expand_as(found.weights)
    return allowed / allowed.sum(-1, keepdim=True).clamp_min(1)


def statistics_of_rows(found: AttentionMap, span: int, periods: Tensor) -> dict[str, Tensor]:
    """Each of `ROW_STATISTICS`, [N, heads, Q], NaN where undefined.

    span : time steps per key; periods : [N], dominant periods of the rows' windows, in steps
    """
    weights, even = found.weights, _even(found)
    distance = found.lags.abs()
    timed = distance.isfinite()
    distance = distance.nan_to_num()
    share = (weights * timed).sum(-1)
    near = timed & (distance <= span)
    lag = (weights * timed * distance).sum(-1) / share
    square = (weights * timed * distance**2).sum(-1) / share
    periods = periods.to(weights.device)
    period = periods.nan_to_num(nan=1.0)[:, None, None, None]
    multiple = (distance / period).round()
    # positive multiples, to half a position; half-way between two positions belongs to neither
    at_multiple = ((distance - multiple * period).abs() < span / 2) & (multiple >= 1)
    seasonal = timed & at_multiple  # [N, 1, Q, K]
    resolved = torch.where(periods >= 2 * span, 0.0, torch.nan)[:, None, None]
    return {
        "sharpness": found.sharpness,
        "entropy": found.entropy,
        "effective_keys": found.entropy.exp(),
        "lag": lag,
        "lag_spread": (square - lag**2).clamp_min(0).sqrt(),
        "diagonal": (weights * near).sum(-1),
        "diagonal_uniform": (even * near).sum(-1),
        "period_share": (weights * seasonal).sum(-1) + resolved,
        "period_share_uniform": (even * seasonal).sum(-1) + resolved,
        "untimed": (weights * ~timed).sum(-1),
    }


def _heads(anatomy: Anatomy, parts: list[RowMeans], owners: Owners, seed: int) -> pd.DataFrame:
    tables = []
    for site, described in anatomy.sites():
        if not described.heads:
            continue
        means = {name: np.concatenate([part.means(site, name) for part in parts]) for name in ROW_STATISTICS}
        columns: dict[str, object] = {
            "address": [f"{site}.head.{head}" for head in described.numbers],
            "stack": site.stack,
            "layer": site.layer,
            "attention": site.attention,
            "head": described.numbers,
            "windows": np.isfinite(means["entropy"]).sum(0),
        }
        for name, values in means.items():
            columns |= owners.sample(values).estimates(seed=seed).columns(name)
        tables.append(pd.DataFrame(columns))
    return ATTENTION_TABLE.checked(pd.concat(tables, ignore_index=True))
