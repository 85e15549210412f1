"""`rank` and `score_table`: components by a score, or by many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tsprune.anatomy import KINDS, Component, Kind
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import Prepared
from tsprune.evaluation.sampling import PER_CONFIGURATION
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.scores.catalogue import SCORES, score_named
from tsprune.scores.registry import Measure, Progress, Score, Settings, Task, Values
from tsprune.scores.stable_rank import stable_ranks
from tsprune.sweeps import BATCH_SIZE, Store


def rank(
    model: Forecaster,
    by: str = "stable_rank",
    suite: Suite | None = None,
    *,
    kind: Kind = "head",
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    prepared: Sequence[Prepared] | None = None,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Components of one kind by a score, one row a component in order of execution.

    by : a score of `tsprune.scores.SCORES`; each says its formula and its source, which kinds have it,
        and which end of it is redundant. "stable_rank", the paper's, needs no data
    suite : for the scores that need windows. What is chosen by their targets (gradients, exact effects)
        must be judged on other series: pass one side of `tsprune.data.split`
    kind : "head", "mlp", "attention" (whole sublayers) or "layer"
    per_configuration : scores of activations look at so many windows of each configuration, evenly
        spread; those of losses (gradients, exact effects) look at all of them
    batch_size : windows in one forecast; activations and gradients take a quarter of it
    seed : of the random signs of `screening`
    prepared, store : for exact effects, see `tsprune.sweep.run`
    progress : called with (done, of all) of what is being computed

    Columns: address, stack, layer, attention, head (None where it does not apply), score, rank. Rank 1
    is the most redundant of its sublayer (heads) or of its stack, the first to be pruned. Ties
    share the lower number; what has no score (NaN: say, attention of a single key) is last, and so
    never called redundant. Heads have both stable ranks beside, whatever they are ranked by.

    Raises TspruneError for an unknown score or kind, a score that the kind does not have or that needs
    windows without a suite, for a model without such components, and for one with NaN or infinite weights.
    """
    score = _checked(by, kind)
    settings = Settings(per_configuration, batch_size, seed, prepared, store, progress)
    values = _measured(model, suite, [score], _components(model, (kind,)), settings)[by]
    frame = _described(model.anatomy.components(kind))
    frame["score"] = [values.get(c, np.nan) for c in model.anatomy.components(kind)]
    frame["rank"] = ranks(frame, score)
    if kind != "head":
        return frame
    intrinsic = stable_ranks(model)[["address", "stable_rank", "stable_rank_effective"]]
    return frame.merge(intrinsic, on="address", validate="one_to_one")


def ranks(frame: pd.DataFrame, score: Score) -> pd.Series:
    """Rank of every row by its column `score` among its peers, 1 the first to go, int [rows]."""
    groups = frame.groupby(peer_columns(frame))["score"]
    ascending = score.redundant == "low-to-high"
    return groups.rank(ascending=ascending, method="min", na_option="bottom").astype(int)


def peer_columns(ranking: pd.DataFrame) -> list[str]:
    """Columns that say among which components one is ranked: a head's sublayer, or the stack."""
    return ["stack", "layer", "attention"] if ranking["head"].notna().all() else ["stack"]


def score_table(
    model: Forecaster,
    suite: Suite | None = None,
    by: Sequence[str] | None = None,
    *,
    kinds: Sequence[Kind] = ("head",),
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    prepared: Sequence[Prepared] | None = None,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Many scores of the components of some kinds; what one pass over the windows serves is one pass.

    by : names of scores; None takes every one that the kinds and the model have (exact effects are among
        them, and take most of the time), and without a suite those that need none
    Other arguments as in `rank`.

    Columns: address, kind, stack, layer, attention, head, and one for each score, NaN where a component
    does not have it. One row a component, kind after kind, in order of execution.

    Raises TspruneError as `rank` does.
    """
    components = _components(model, kinds)
    if by is None:
        chosen = available(model, suite, kinds)
    else:
        chosen = [_checked(name, *kinds) for name in dict.fromkeys(by)]
    settings = Settings(per_configuration, batch_size, seed, prepared, store, progress)
    found = _measured(model, suite, chosen, components, settings)
    frame = _described(components)
    frame.insert(1, "kind", [c.kind for c in components])
    for score in chosen:
        frame[score.name] = [found[score.name].get(c, np.nan) for c in components]
    return frame


def available(model: Forecaster, suite: Suite | None, kinds: Sequence[Kind]) -> list[Score]:
    """The scores that some of these kinds have, on this model and with this suite (or without any)."""
    return [s for s in SCORES.values() if set(s.kinds) & set(kinds) and _possible(model, suite, s)]


def _measured(
    model: Forecaster,
    suite: Suite | None,
    scores: Sequence[Score],
    components: Sequence[Component],
    settings: Settings,
) -> dict[str, Values]:
    model.require_finite_weights()
    families: dict[Measure, list[Score]] = {}
    for score in scores:
        _require(model, suite, score)
        families.setdefault(score.measure, []).append(score)
    if suite is not None and any(score.needs != "weights" for score in scores):
        suite.require_windows()
    found: dict[str, Values] = {}
    for measure, members in families.items():
        kinds = {kind for score in members for kind in score.kinds}
        those = [c for c in components if c.kind in kinds]
        found |= measure(Task(model, members, those, suite, settings))
    return found


# --- what can be asked for -----------------------------------------------------------------------


def _checked(name: str, *kinds: Kind) -> Score:
    score = score_named(name)
    _check_kinds(kinds)
    if not set(kinds) & set(score.kinds):
        which = " or ".join(kinds)
        have = ", ".join(s.name for s in SCORES.values() if set(kinds) & set(s.kinds))
        raise TspruneError(
            f"{name} is a score of {' and '.join(score.kinds)}, not of {which}; {which} has: {have}"
        )
    return score


def _check_kinds(kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise TspruneError(f"unknown kind {kind!r}; one of: {', '.join(KINDS)}")


def _components(model: Forecaster, kinds: Sequence[Kind]) -> tuple[Component, ...]:
    _check_kinds(kinds)
    found = tuple(c for kind in dict.fromkeys(kinds) for c in model.anatomy.components(kind))
    if not found:
        raise TspruneError(f"{model.name} has no component of kind {' or '.join(kinds)} left to score")
    return found


def _possible(model: Forecaster, suite: Suite | None, score: Score) -> bool:
    if score.needs == "gradient" and isinstance(model, SamplingForecaster):
        return False
    return suite is not None or score.needs == "weights"


def _require(model: Forecaster, suite: Suite | None, score: Score) -> None:
    if suite is None and score.needs != "weights":
        raise TspruneError(f"the score {score.name} needs windows: pass a suite, e.g. tsprune.data.pocket()")
    if not _possible(model, suite, score):
        raise TspruneError(
            f"{model.name} samples its forecasts, which have no gradient: no {score.name}; use screening"
        )


def _described(components: Sequence[Component]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "address": [c.address for c in components],
            "stack": [c.stack for c in components],
            "layer": [c.layer for c in components],
            "attention": [c.attention for c in components],
            "head": [c.head for c in components],
        }
    )
