"""Everything that is known about a model's heads and layers, measured in one go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pandas as pd

from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.explain.attention_maps import attention
from tsprune.explain.attribution import attribution
from tsprune.explain.head_correlations import head_correlations
from tsprune.explain.induction import induction, induction_and_parroting
from tsprune.explain.kernel import kernel_view
from tsprune.explain.mechanism import (
    DRAWS,
    PERCENTS,
    HeadEffects,
    head_effects,
    mechanism_table,
    verdicts,
)
from tsprune.explain.portraits import Portrait, portraits
from tsprune.explain.residual import guard_contexts, lens, lens_guard, residual
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.scores.stable_rank import stable_ranks

# an explanation forecasts every window hundreds of times; comparisons are paired (`tsprune.models.draws`)
EXPLAIN_SAMPLES = 16

# (what is measured, steps done, steps of it)
Progress = Callable[[str, int, int], None]
STEPS = ("attention", "induction", "residual", "guard", "attribution", "effects", "portraits")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Tables of `overview`, each as the function that is named beside it returns them.

    heads : one row a head, of what each table says of it: stable ranks, sharpness, effective_keys, lag,
        lag_spread, diagonal and period_share with their `_uniform` null and intervals, occurrence_score and
        followed_score (mean over blocks and repeats), followed_sure (share of these whose interval is
        above 0), share and size (of the forecast it wrote), and
        mase, parroting, seasonality, mean_reversion (effects of its ablation)
    attention, profile : `attention`
    kernel : `kernel_view`
    induction : `induction`
    residual, cka : `residual`
    lens, guard : `lens`, `lens_guard`
    attribution : `attribution`
    effects, verdicts, induction_effects : `head_effects(...).sets`, `verdicts`, `induction_and_parroting`;
        empty without effects
    clean : of the unablated forecast, one row a trait: trait, excess over the true future's, low, high,
        series; empty without effects
    mechanism, correlations : `mechanism_table`, `head_correlations`; empty without effects
    portraits : of a few telling heads
    model, suite, windows, draws, samples : what was explained, on how many windows, with how many random
        sets of heads, and paths drawn per window (None if the model does not sample)
    skipped : (part, reason) of what could not be measured
    """

    heads: pd.DataFrame
    attention: pd.DataFrame
    profile: pd.DataFrame
    kernel: pd.DataFrame
    induction: pd.DataFrame
    residual: pd.DataFrame
    cka: pd.DataFrame
    lens: pd.DataFrame
    guard: pd.DataFrame
    attribution: pd.DataFrame
    effects: pd.DataFrame
    verdicts: pd.DataFrame
    induction_effects: pd.DataFrame
    clean: pd.DataFrame
    mechanism: pd.DataFrame
    correlations: pd.DataFrame
    portraits: tuple[Portrait, ...]
    model: str
    suite: str
    windows: int
    draws: int
    samples: int | None
    skipped: tuple[tuple[str, str], ...]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name."""
        every = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in every.items() if isinstance(value, pd.DataFrame)}


def overview(
    model: Forecaster,
    suite: Suite,
    *,
    per_configuration: int = PER_CONFIGURATION,
    effects: bool = True,
    percents: Sequence[int] = PERCENTS,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Explanation:
    """Explains a model on a suite: attention, induction, residual stream, attribution, effects of heads.

    per_configuration : at most so many windows of each configuration, evenly spread
    effects : whether heads are also ablated, alone and in sets, which takes most of the time
    percents, draws : of the sets of heads (see `head_effects`)

    What a model's anatomy does not support is left out and listed in `skipped`.

    Raises TspruneError for a suite without windows.
    """
    skipped: list[tuple[str, str]] = []

    def started(step: str, done: int = 0, total: int = 1) -> None:
        if progress is not None:
            progress(step, done, total)

    def tried(step: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        started(step)
        try:
            return measure()
        except TspruneError as error:
            skipped.append((step, str(error)))
            return pd.DataFrame()

    started("attention")
    seen = attention(model, suite, per_configuration=per_configuration, seed=seed)
    repeated = tried("induction", lambda: induction(model, seed=seed))
    started("residual")
    stream = residual(model, suite, per_configuration=per_configuration, seed=seed)
    decoded = lens(model, suite, per_configuration=per_configuration, seed=seed)
    guarded = tried("guard", lambda: lens_guard(model, guard_contexts(model, suite)))
    written = tried(
        "attribution", lambda: attribution(model, suite, per_configuration=per_configuration, seed=seed)
    )
    found = HeadEffects(pd.DataFrame(), pd.DataFrame(), {})
    judged, linked, mechanism, agreed = (pd.DataFrame() for _ in range(4))
    if effects:
        sharpness = seen.heads.set_index("address")["sharpness"].to_dict()
        found = head_effects(
            model,
            suite,
            sharpness,
            per_configuration=per_configuration,
            percents=percents,
            draws=draws,
            seed=seed,
            progress=lambda done, total: started("effects", done, total),
        )
        judged = verdicts({model.name: found})
        mechanism = mechanism_table({model.name: found})
        if len(repeated):
            linked = induction_and_parroting(repeated, found.heads, seed=seed)
    heads = _heads(model, seen.heads, repeated, written, found.heads)
    if effects:
        agreed = head_correlations(heads, seed=seed)
    started("portraits")
    return Explanation(
        heads=heads,
        attention=seen.heads,
        profile=seen.profile,
        kernel=kernel_view(model, seen, seed=seed),
        induction=repeated,
        residual=stream.layers,
        cka=stream.cka,
        lens=decoded,
        guard=guarded,
        attribution=written,
        effects=found.sets,
        verdicts=judged,
        induction_effects=linked,
        clean=_clean(found),
        mechanism=mechanism,
        correlations=agreed,
        portraits=portraits(model, suite, heads, per_configuration=per_configuration),
        model=model.name,
        suite=suite.name,
        windows=len(sampled(suite, model, per_configuration)),
        draws=draws,
        samples=model.samples if isinstance(model, SamplingForecaster) else None,
        skipped=tuple(skipped),
    )


def _clean(found: HeadEffects) -> pd.DataFrame:
    return pd.DataFrame(
        {"trait": trait, "excess": x.mean, "low": x.low, "high": x.high, "series": x.count}
        for trait, x in found.clean.items()
    )


def _heads(
    model: Forecaster,
    seen: pd.DataFrame,
    repeated: pd.DataFrame,
    written: pd.DataFrame,
    effects: pd.DataFrame,
) -> pd.DataFrame:
    """One row a head: the tables side by side."""
    ranks = stable_ranks(model)[["address", "stable_rank", "stable_rank_effective"]]
    table = seen.merge(ranks, on="address", how="left")
    if len(repeated):
        scores = ["occurrence_score", "followed_score"]
        known = repeated[repeated["followed_score_low"].notna()]
        sure = (known["followed_score_low"] > 0).groupby(known["address"]).mean().rename("followed_sure")
        means = repeated.groupby("address")[scores].mean().join(sure).reset_index()
        table = table.merge(means, on="address", how="left")
    if len(written):
        shares = written.loc[written["kind"] == "head", ["part", "share", "size"]]
        table = table.merge(shares.rename(columns={"part": "address"}), on="address", how="left")
    if len(effects):
        table = table.merge(effects, on="address", how="left")
    return table
