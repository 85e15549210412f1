"""heads@Xpp: the number of heads of a layer that must stay for a loss of at most X percent.

heads@Xpp(layer) = H - max{n : score(n) <= (1 + X/100) score(0)}, where score(n) is the geometric mean over
configurations of the metric relative to Seasonal Naive after the first n heads in rank order are ablated
(arXiv 2602.01605). Seasonal Naive cancels, so changes relative to n = 0 suffice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.split import CALIBRATION_FRACTION, calibration_mask, split
from tsprune.data.suite import Suite
from tsprune.evaluation import METRICS
from tsprune.evaluation.single_series import unmeasured
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.strategies import SUBLAYER, as_components, ordered
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, Table
from tsprune.scores import ORDERS, Order, rank
from tsprune.sweeps.engine import run
from tsprune.sweeps.single_components import failed_cells
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult

HEADS_AT = Schema(
    "heads_at",
    Column("stack", "name of the stack", dtype="text"),
    Column("layer", "number in the original model", dtype="count"),
    Column("attention", "role of the attention sublayer", dtype="text"),
    Column("heads", "of the sublayer", dtype="count"),
    Column("selection", "windows that order and count are chosen on: test or calibration", dtype="text"),
    Column("order", "high-to-low or low-to-high", dtype="text"),
    Column("removed", "most heads that can be removed", dtype="count"),
    Column("heads_at", "heads that must stay", dtype="count"),
    Column("score_change", "of the metric on the report windows", "relative change"),
)


@dataclasses.dataclass(frozen=True)
class Prefix:
    """The first `count` heads of one sublayer in one order of removal."""

    stack: str
    layer: int
    attention: str
    order: Order
    count: int


Prefixes = Mapping[Prefix, Ablation]


def prefix_ablations(ranking: pd.DataFrame) -> dict[Prefix, Ablation]:
    """Every prefix (n = 1..H, both orders) of every sublayer with its ablation.

    Both orders end with all heads: one ablation, forecast once.
    """
    found = {}
    for order in ORDERS:
        for (stack, layer, attention), group in ordered(ranking, order).groupby(SUBLAYER, sort=False):
            heads = group.sort_values("turn")["address"].tolist()
            for count in range(1, len(heads) + 1):
                prefix = Prefix(stack, int(layer), attention, order, count)
                found[prefix] = Ablation(as_components(heads[:count]))
    return found


def most_removable(changes: Sequence[float], max_loss: float) -> int:
    """max{n : change(n) <= max_loss}; changes[n-1] is the change after n heads, change(0) = 0.

    >>> most_removable([0.001, 0.02, 0.009], max_loss=0.01)
    3
    """
    return max((n for n, change in enumerate(changes, start=1) if change <= max_loss), default=0)


def heads_at_frame(
    result: SweepResult, prefixes: Prefixes, *, max_loss: float, metric: str, calibration: Masks
) -> pd.DataFrame:
    """heads@Xpp of every sublayer with both selections; columns as in `heads_at`."""
    report = {name: ~mask for name, mask in calibration.items()}
    everything = {name: np.ones_like(mask) for name, mask in calibration.items()}
    sublayers: dict[tuple[str, int, str], dict[Order, list[Ablation]]] = {}
    for prefix, ablation in prefixes.items():
        key = prefix.stack, prefix.layer, prefix.attention
        sublayers.setdefault(key, {}).setdefault(prefix.order, []).append(ablation)
    rows = []
    for (stack, layer, attention), orders in sublayers.items():
        for selection, chosen_on, scored_on in (
            ("test", everything, everything),
            ("calibration", calibration, report),
        ):
            order, removed = _choose(result, orders, max_loss, metric, chosen_on)
            heads = len(orders[order])
            change = _changes(result, [CLEAN, *orders[order]][removed : removed + 1], metric, scored_on)[0]
            rows.append((stack, layer, attention, heads, selection, order, removed, heads - removed, change))
    return HEADS_AT.checked(pd.DataFrame(rows, columns=list(HEADS_AT.names)))


def _choose(
    result: SweepResult,
    orders: Mapping[Order, Sequence[Ablation]],
    max_loss: float,
    metric: str,
    masks: Masks,
) -> tuple[Order, int]:
    counts = {
        order: most_removable(_changes(result, ablations, metric, masks), max_loss)
        for order, ablations in orders.items()
    }
    best = max(ORDERS, key=lambda order: counts[order])  # the paper's order wins a tie
    return best, counts[best]


def _changes(result: SweepResult, ablations: Sequence[Ablation], metric: str, masks: Masks) -> list[float]:
    return [result.change(ablation, masks)[metric] for ablation in ablations]


def calibration_masks(suite: Suite, *, fraction: float, seed: int) -> dict[str, NDArray[np.bool_]]:
    """configuration -> bool [N], the calibration windows, which order and count are chosen on."""
    return {c.name: calibration_mask(c, fraction, seed) for c in suite.configurations}


@checked
def heads_at(
    model: Forecaster,
    suite: Suite,
    *,
    max_loss: float = 0.01,
    by: str = "stable_rank",
    metric: str = "MASE",
    calibration: float = CALIBRATION_FRACTION,
    **options: Unpack[Options],
) -> Table:
    """Heads of every attention sublayer that must stay for a loss of at most `max_loss`, two rows each.

    max_loss : relative change of the metric; 0.01, the figure heads@1pp, is 1 % worse
    by : score that orders the heads (see `tsprune.rank`)
    metric : a name in `METRICS`, such as "MASE" or "CRPS"
    calibration : share of the series that order and count are chosen on
    options : keywords of `tsprune.run_options.RunOptions`. With a `store`, an ablation that raises counts as
        too large a loss instead of ending the sweep

    Selection "test" is the paper's protocol: the better of both orders, chosen on the windows it is
    reported on. Selection "calibration" is unbiased: chosen on the calibration series, with `score_change`
    measured on the others. A score that needs windows is computed on the calibration series only, for both
    selections.

    The columns are those of `HEADS_AT`.

    Raises TspruneError for an unknown metric or score, a negative loss, a suite without windows,
    or, if the score needs windows, without a calibration part.
    """
    chosen = RunOptions(**options)
    METRICS.named(metric)
    masks = calibration_masks(suite, fraction=calibration, seed=chosen.seed)
    part, _ = split(suite, fraction=calibration, seed=chosen.seed)
    prefixes = prefix_ablations(rank(model, part, by=by, **options))
    result = run(model, suite, list(prefixes.values()), stage="ablating", **options)
    frame = heads_at_frame(result, prefixes, max_loss=max_loss, metric=metric, calibration=masks)
    title = f"{model.name} on {suite.name}: heads@{100 * max_loss:g}pp by {by}"
    return Table(frame, title, result.skipped, failed_cells(result), unmeasured(model, suite))
