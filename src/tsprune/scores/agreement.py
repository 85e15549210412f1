"""Which scores tell what an ablation does? Rank correlation of every score with the exact effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from tsprune.anatomy import Kind
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import PER_CONFIGURATION
from tsprune.models.forecaster import Forecaster
from tsprune.scores.catalogue import SCORES
from tsprune.scores.ranking import score_table
from tsprune.scores.registry import Progress
from tsprune.statistics import correlation_row
from tsprune.sweeps import BATCH_SIZE, Store

METRICS = {"MASE": "mase_change", "CRPS": "crps_change"}


def agreement(
    model: Forecaster,
    suite: Suite,
    by: Sequence[str] | None = None,
    *,
    kinds: Sequence[Kind] = ("head", "mlp"),
    effects: pd.DataFrame | None = None,
    calibration_fraction: float = CALIBRATION_FRACTION,
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Rank correlation of scores with the exact effect of zeroing single components.

    by : names of scores; None takes all that the model has
    effects : exact effects (address, mase_change, crps_change), if they are known already; they should
        be of the report side of `tsprune.data.split` with this fraction and seed
    calibration_fraction, seed : which series scores are computed on; effects are of the others
    Other arguments as in `rank`.

    As scores and effects are of different series, noise that they would share is no agreement, and the
    exact effect itself, a score of the calibration series, says what could be reached.

    Columns as in `agreement_table`. Raises TspruneError as `rank` does.
    """
    calibration, report = split(suite, fraction=calibration_fraction, seed=seed)
    if effects is None:
        effects = score_table(
            model,
            report,
            list(METRICS.values()),
            kinds=kinds,
            batch_size=batch_size,
            store=store,
            progress=progress,
        )
    scores = score_table(
        model,
        calibration,
        by,
        kinds=kinds,
        per_configuration=per_configuration,
        batch_size=batch_size,
        seed=seed,
        store=store,
        progress=progress,
    )
    return agreement_table(scores, effects)


def agreement_table(scores: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho of every score with exact effects, over components of one kind.

    scores : as `score_table` gives them (with further columns named as in `SCORES`, if there are)
    effects : one row a component with address, mase_change and crps_change; a sweep's table, say

    Columns: kind, group (`all`, or the heads of one kind of sublayer of one stack, e.g.
    `decoder.cross`), score, metric, rho, low, high (95 % over components), p_value (of no
    relation), count, and expected: the sign that rho has if the score is right about
    which end is redundant, +1 where low scores go first, -1 where high ones do. NaN where fewer than
    three components have both, or one of them is constant.
    """
    columns = ["address", *METRICS.values()]
    known = effects[columns].rename(columns={name: f"exact {name}" for name in METRICS.values()})
    both = scores.merge(known, on="address", validate="one_to_one")
    rows = []
    for kind, group, part in _groups(both):
        for score in (SCORES[name] for name in scores.columns if name in SCORES):
            if kind not in score.kinds:
                continue
            for metric, column in METRICS.items():
                found = correlation_row(part[score.name].to_numpy(), part[f"exact {column}"].to_numpy())
                what = {"kind": kind, "group": group, "score": score.name, "metric": metric}
                expected = 1 if score.redundant == "low-to-high" else -1
                rows.append({**what, **found, "expected": expected})
    return pd.DataFrame(rows)


def _groups(components: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(kind, group, its components): all of a kind, and heads by kind of sublayer if there are several."""
    for kind, part in components.groupby("kind", sort=False):
        yield str(kind), "all", part
        sublayers = part["stack"] + "." + part["attention"] if kind == "head" else part["stack"]
        if sublayers.nunique() > 1:
            for name, some in part.groupby(sublayers, sort=False):
                yield str(kind), str(name), some
