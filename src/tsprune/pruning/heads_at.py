"""heads@Xpp: how many heads of a layer must stay for a loss of at most X percent.

heads@Xpp(layer) = H - max{n : score(n) <= (1 + X/100) score(0)}, with score(n) the geometric mean
over configurations of the metric relative to Seasonal Naive after the first n heads in rank order
are ablated (arXiv 2602.01605; Seasonal Naive cancels, so changes relative to n = 0 suffice).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsprune.arguments import checked
from tsprune.data.split import CALIBRATION_FRACTION, calibration_mask, split
from tsprune.data.suite import Suite
from tsprune.evaluation import METRICS
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.strategies import ORDERS, SUBLAYER, Order, as_components, ordered
from tsprune.scores import rank
from tsprune.sweeps.engine import BATCH_SIZE, Progress, run
from tsprune.sweeps.single_components import failed_cells
from tsprune.sweeps.store import Store
from tsprune.sweeps.sweep_result import CLEAN, Masks, SweepResult

Selection = Literal["test", "calibration"]


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
    """Every prefix (n = 1..H, both orders) of every sublayer, as an ablation.

    Both orders end with all heads: the same ablation, forecast once.
    """
    found = {}
    for order in ORDERS:
        for (stack, layer, attention), group in ordered(ranking, order).groupby(SUBLAYER, sort=False):
            heads = group.sort_values("turn")["address"].tolist()
            for count in range(1, len(heads) + 1):
                prefix = Prefix(stack, int(layer), attention, order, count)
                found[prefix] = Ablation(as_components(heads[:count]))
    return found


def most_removable(changes: Sequence[float], percent: float) -> int:
    """max{n : change(n) <= percent/100}; changes[n-1] is the change after n heads, change(0) = 0.

    >>> most_removable([0.001, 0.02, 0.009], percent=1)
    3
    """
    within = [n for n, change in enumerate(changes, start=1) if change <= percent / 100]
    return max(within, default=0)


def heads_at_frame(
    result: SweepResult,
    prefixes: Prefixes,
    *,
    percent: float,
    metric: str,
    calibration: Masks,
) -> pd.DataFrame:
    """heads@Xpp of every sublayer under both selections; columns as in `heads_at`."""
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
            order, removed = _choose(result, orders, percent, metric, chosen_on)
            heads = len(orders[order])
            change = _changes(result, [CLEAN, *orders[order]][removed : removed + 1], metric, scored_on)[0]
            rows.append(
                {
                    "stack": stack,
                    "layer": layer,
                    "attention": attention,
                    "heads": heads,
                    "selection": selection,
                    "order": order,
                    "removed": removed,
                    "heads_at": heads - removed,
                    "score_change": change,
                }
            )
    return pd.DataFrame(rows)


def _choose(
    result: SweepResult,
    orders: Mapping[Order, Sequence[Ablation]],
    percent: float,
    metric: str,
    masks: Masks,
) -> tuple[Order, int]:
    counts = {
        order: most_removable(_changes(result, ablations, metric, masks), percent)
        for order, ablations in orders.items()
    }
    best = max(ORDERS, key=lambda order: counts[order])  # a tie goes to the paper's order
    return best, counts[best]


def _changes(result: SweepResult, ablations: Sequence[Ablation], metric: str, masks: Masks) -> list[float]:
    changes = (result.change(ablation, masks) for ablation in ablations)
    return [change[metric] for change in changes]


def calibration_masks(suite: Suite, *, fraction: float, seed: int) -> dict[str, NDArray[np.bool_]]:
    """configuration -> bool [N], the windows on which order and count are chosen."""
    return {c.name: calibration_mask(c, fraction, seed) for c in suite.configurations}


@checked
def heads_at(
    model: Forecaster,
    suite: Suite,
    percent: float = 1.0,
    *,
    by: str = "stable_rank",
    metric: str = "MASE",
    calibration_fraction: float = CALIBRATION_FRACTION,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
    store: Store | str | Path | None = None,
) -> pd.DataFrame:
    """heads@`percent`pp of every attention sublayer, two rows each.

    by : the score that orders the heads (see `tsprune.rank`)
    metric : a name in `METRICS`, such as "MASE" or "CRPS"
    calibration_fraction, seed : which series order and count are chosen on
    store : a results store, or the path of one: what it holds is not computed again, and what is
        computed is kept there batch by batch; an ablation that raises then counts as too much

    `selection` "test" is the paper's protocol: the better of both orders, chosen on the windows it
    is reported on. "calibration" is the honest one: chosen on the calibration series, and
    `score_change` measured on the others.

    A score that needs windows is computed on those of the calibration series only, for both selections:
    nothing that orders the heads has seen the windows that the honest `score_change` is of.

    Columns: stack, layer, attention, heads, selection, order, removed (n), heads_at (heads that
    must stay), score_change (relative change of the metric after removing the n heads).
    `frame.attrs["skipped"]` lists what could not be forecast, `frame.attrs["failed"]` (heads and
    configuration, error) of what raised, with a store.

    Raises TspruneError for an unknown metric or score, a negative percentage, a suite without windows,
    or, if the score needs windows, without a calibration side.
    """
    METRICS.named(metric)
    masks = calibration_masks(suite, fraction=calibration_fraction, seed=seed)
    with Store(store) if isinstance(store, str | Path) else nullcontext(store) as opened:
        calibration, _ = split(suite, fraction=calibration_fraction, seed=seed)
        ranking = rank(
            model,
            calibration,
            by=by,
            batch_size=batch_size,
            seed=seed,
            store=opened,
            progress=progress and (lambda stage, done, total: progress(done, total)),
        )
        prefixes = prefix_ablations(ranking)
        result = run(
            model,
            suite,
            list(prefixes.values()),
            batch_size=batch_size,
            progress=progress,
            store=opened,
        )
    frame = heads_at_frame(result, prefixes, percent=percent, metric=metric, calibration=masks)
    frame.attrs["skipped"] = list(result.skipped)
    frame.attrs["failed"] = failed_cells(result)
    return frame
