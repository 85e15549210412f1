"""`rank` and `score_table`: components by one score, or by many."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Unpack

import numpy as np
import pandas as pd

from tsprune.anatomy import Component, Kind, check_kinds, described
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import PER_CONFIGURATION
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.run_options import Options, RunOptions
from tsprune.scores.catalogue import SCORES
from tsprune.scores.score import Score, ScoringTask, Values
from tsprune.scores.stable_rank import stable_ranks


@checked
def rank(
    model: Forecaster,
    suite: Suite | None = None,
    *,
    by: str = "stable_rank",
    kind: Kind = "head",
    per_configuration: int = PER_CONFIGURATION,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Components of one kind by a score, one row per component in order of execution.

    suite : for scores that need windows. Judge a choice that used the targets of these windows (gradients,
        exact effects) on other series: pass one part of `tsprune.data.split`
    by : a score of `tsprune.scores.SCORES`, which gives formula, source, kinds and redundant end of each;
        "stable_rank", the paper's score, needs no data
    kind : "head", "mlp", "attention" (whole sublayers) or "layer"
    per_configuration : windows of each configuration, evenly spread, for scores of activations; scores of
        losses (gradients, exact effects) use all windows
    options : keywords of `tsprune.run_options.RunOptions`. Activations and gradients use a quarter of
        `batch_size`; `seed` is of the random signs of "screening"; `store` keeps exact effects

    Columns: address, stack, layer, attention, head (None where it does not apply), score, rank. Rank 1
    is the most redundant of its sublayer (heads) or of its stack: the first to be pruned. Ties share the
    lower number. Components without a score (NaN, such as attention with a single key) come last, so they
    are never called redundant. Heads have columns with both stable ranks whatever the score.

    Raises TspruneError for an unknown score or kind, a score that the kind does not have or that needs
    windows without a suite, a model without such components, or NaN or infinite weights.
    """
    score = _checked(by, kind)
    components = _components(model, (kind,))
    task = ScoringTask(model, [score], components, suite, per_configuration, RunOptions(**options))
    values = _measured(task)[by]
    frame = pd.DataFrame(described(components)).drop(columns="kind")
    frame["score"] = [values.get(c, np.nan) for c in components]
    frame["rank"] = ranks(frame, score)
    if kind != "head":
        return frame
    intrinsic = stable_ranks(model)[["address", "stable_rank", "stable_rank_effective"]]
    return frame.merge(intrinsic, on="address", validate="one_to_one")


def ranks(frame: pd.DataFrame, score: Score) -> pd.Series:
    """Rank of every row by its column `score` among its peers, 1 for the most redundant, int [rows]."""
    groups = frame.groupby(peer_columns(frame))["score"]
    ascending = score.redundant == "low-to-high"
    return groups.rank(ascending=ascending, method="min", na_option="bottom").astype(int)


def peer_columns(ranking: pd.DataFrame) -> list[str]:
    """Columns that define the group a component is ranked in: the sublayer of a head, else the stack."""
    return ["stack", "layer", "attention"] if ranking["head"].notna().all() else ["stack"]


@checked
def score_table(
    model: Forecaster,
    suite: Suite | None = None,
    *,
    by: Sequence[str] | None = None,
    kinds: Sequence[Kind] = ("head",),
    per_configuration: int = PER_CONFIGURATION,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Many scores of the components of some kinds; scores that share a forward pass use one pass.

    by : names of scores; None takes every score that the kinds and the model have (including the exact
        effects, which take most of the time), and without a suite those that need no windows
    Other arguments as in `rank`.

    Columns: address, kind, stack, layer, attention, head, and one per score, NaN where a component does
    not have it. One row per component, kind after kind, in order of execution.

    Raises TspruneError as `rank` does.
    """
    components = _components(model, kinds)
    if by is None:
        chosen = available_scores(model, suite, kinds)
    else:
        chosen = [_checked(name, *kinds) for name in dict.fromkeys(by)]
    task = ScoringTask(model, chosen, components, suite, per_configuration, RunOptions(**options))
    found = _measured(task)
    frame = pd.DataFrame(described(components))
    for score in chosen:
        frame[score.name] = [found[score.name].get(c, np.nan) for c in components]
    return frame


def available_scores(model: Forecaster, suite: Suite | None, kinds: Sequence[Kind]) -> list[Score]:
    """The scores that some of these kinds have, on this model and with this suite (or without any)."""
    return [s for s in SCORES.values() if set(s.kinds) & set(kinds) and _possible(model, suite, s)]


def _measured(task: ScoringTask) -> dict[str, Values]:
    """The values of all scores of a task, measured by family."""
    task.model.require_finite_weights()
    families: dict[Callable[..., object], list[Score]] = {}
    for score in task.scores:
        _require(task.model, task.suite, score)
        families.setdefault(score.measure, []).append(score)
    if task.suite is not None and any(score.needs != "weights" for score in task.scores):
        task.suite.require_windows()
    found: dict[str, Values] = {}
    for members in families.values():
        kinds = {kind for score in members for kind in score.kinds}
        part = [c for c in task.components if c.kind in kinds]
        found |= members[0].measure(dataclasses.replace(task, scores=members, components=part))
    missing = [score.name for score in task.scores if score.name not in found]
    if missing:
        raise TspruneError(f"the function of the score {', '.join(missing)} returned no values of it")
    return found


# --- checks --------------------------------------------------------------------------------------


def _checked(name: str, *kinds: Kind) -> Score:
    score = SCORES.named(name)
    check_kinds(kinds)
    if not set(kinds) & set(score.kinds):
        wanted = " or ".join(kinds)
        have = ", ".join(s.name for s in SCORES.values() if set(kinds) & set(s.kinds))
        raise TspruneError(
            f"{name} is a score of {' and '.join(score.kinds)}, not of {wanted}; scores of {wanted}: {have}"
        )
    return score


def _components(model: Forecaster, kinds: Sequence[Kind]) -> tuple[Component, ...]:
    check_kinds(kinds)
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
            f"{score.name} needs the gradient of a forecast, and {model.name} samples its own; use screening"
        )
