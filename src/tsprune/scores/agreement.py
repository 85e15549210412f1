"""Agreement of scores with the exact effect of ablations: rank correlations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Unpack

import pandas as pd

from tsprune.anatomy import Kind
from tsprune.arguments import checked
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.evaluation.sampling import PER_CONFIGURATION
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import Options, RunOptions
from tsprune.scores.catalogue import SCORES
from tsprune.scores.ranking import score_table
from tsprune.statistics import correlation_row

_COLUMNS = {"MASE": "mase_change", "CRPS": "crps_change"}


@checked
def agreement(
    model: Forecaster,
    suite: Suite,
    *,
    by: Sequence[str] | None = None,
    kinds: Sequence[Kind] = ("head", "mlp"),
    effects: pd.DataFrame | None = None,
    calibration: float = CALIBRATION_FRACTION,
    per_configuration: int = PER_CONFIGURATION,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Rank correlation of scores with the exact effect of zeroing single components.

    by : names of scores; None takes all that the model has
    effects : known exact effects (columns address, mase_change, crps_change) of the report part of
        `tsprune.data.split` with this fraction and seed; None measures them
    calibration : share of the series that scores are computed on; effects are of the others
    Other arguments as in `rank`; `seed` also chooses the calibration series.

    Scores and effects come from different series, so shared noise does not count as agreement. The exact
    effect on the calibration series is among the scores: an upper bound for the others.

    Columns as in `agreement_table`. Raises TspruneError as `rank` does.
    """
    chosen, report = split(suite, fraction=calibration, seed=RunOptions(**options).seed)
    if effects is None:
        effects = score_table(model, report, by=list(_COLUMNS.values()), kinds=kinds, **options)
    scores = score_table(model, chosen, by=by, kinds=kinds, per_configuration=per_configuration, **options)
    return agreement_table(scores, effects)


def agreement_table(scores: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations from a table of scores and one of exact effects.

    scores : as `score_table` returns it
    effects : one row per component with address, mase_change and crps_change, such as a sweep's table

    Columns: kind, group ("all", or the heads of one kind of sublayer of one stack, e.g. "decoder.cross"),
    score, metric, rho, low, high (95 % interval over components), p_value (of no relation), count, and
    expected: +1 if low scores call a component redundant, else -1, the sign of rho of a score that is right.
    NaN where fewer than three components have both, or one of them is constant.
    """
    columns = ["address", *_COLUMNS.values()]
    known = effects[columns].rename(columns={name: f"exact {name}" for name in _COLUMNS.values()})
    both = scores.merge(known, on="address", validate="one_to_one")
    found = [SCORES[name] for name in scores.columns if name in SCORES]
    rows = []
    for (kind, group, part), score in itertools.product(_groups(both), found):
        if kind not in score.kinds:
            continue
        expected = 1 if score.redundant == "low-to-high" else -1
        for metric, column in _COLUMNS.items():
            row = correlation_row(part[score.name].to_numpy(), part[f"exact {column}"].to_numpy())
            names = {"kind": kind, "group": group, "score": score.name, "metric": metric}
            rows.append({**names, **row, "expected": expected})
    return pd.DataFrame(rows)


def _groups(components: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(kind, group, its rows): all of a kind, then the kinds of sublayer (or stacks) if there are several."""
    for kind, part in components.groupby("kind", sort=False):
        yield str(kind), "all", part
        sublayers = part["stack"] + "." + part["attention"] if kind == "head" else part["stack"]
        if sublayers.nunique() > 1:
            for name, some in part.groupby(sublayers, sort=False):
                yield str(kind), str(name), some
