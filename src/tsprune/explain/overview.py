"""Everything that is known about a model's heads and layers, measured in one go."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from tsprune.arguments import checked
from tsprune.cost.threads import worthwhile
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.explain.attention_maps import attention
from tsprune.explain.attribution.contributions import attribution
from tsprune.explain.attribution.residual_stream import guard_contexts, lens, lens_guard, residual
from tsprune.explain.chaotic import PER_SYSTEM, chaotic_mechanism, chaotic_traits
from tsprune.explain.head_correlations import head_correlations
from tsprune.explain.induction import induction, induction_and_parroting
from tsprune.explain.kernel import kernel_view
from tsprune.explain.mechanism import DRAWS, PERCENTS, HeadEffects, head_effects
from tsprune.explain.mechanism_claims import by_share, mechanism_table
from tsprune.explain.portraits import Portrait, portraits
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.scores.stable_rank import stable_ranks

# an explanation forecasts every window hundreds of times; comparisons are paired (`tsprune.models.draws`);
# odd, so that the median is a path that was drawn
EXPLAIN_SAMPLES = 9
STEPWISE_SAMPLES = 5  # of models of tokens
# of each configuration, with models of tokens, which run once for every step of every path
STEPWISE_WINDOWS = 2

# (what is measured, steps done, steps of it)
Progress = Callable[[str, int, int], None]
STEPS = ("attention", "induction", "residual", "guard", "attribution", "effects", "chaos", "portraits")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Tables of `overview`, each as the function that is named beside it returns them.

    heads : one row a head, of what each table says of it: stable ranks, sharpness, effective_keys, lag,
        lag_spread, diagonal and period_share with their `_uniform` null and intervals, occurrence_score and
        followed_score (mean over blocks and repeats), followed_sure (share of these whose interval is
        above 0), share and size (of the forecast it wrote, or, of an encoder's, of what was fetched), and
        mase, parroting, seasonality, mean_reversion (effects of its ablation)
    attention, profile : `attention`
    kernel : `kernel_view`
    induction : `induction`
    residual, cka : `residual`
    lens, guard : `lens`, `lens_guard`
    attribution : `attribution`
    effects, by_share, induction_effects : `head_effects(...).sets`, `by_share`, `induction_and_parroting`;
        empty without effects
    clean : of the unablated forecast, one row a trait: trait, excess over the true future's, low, high,
        units; empty without effects
    mechanism, correlations : `mechanism_table`, `head_correlations`; empty without effects
    chaos, chaos_mechanism : `chaotic_traits` and, with effects, `chaotic_mechanism`; empty without
        trajectories
    portraits : of a few telling heads
    model, suite, windows, draws, samples : what was explained, on how many windows, with how many random
        sets of heads, and paths drawn per window (None if the model does not sample)
    forecast_windows : windows that were forecast without heads (see `windows_to_forecast`)
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
    by_share: pd.DataFrame
    induction_effects: pd.DataFrame
    clean: pd.DataFrame
    mechanism: pd.DataFrame
    correlations: pd.DataFrame
    chaos: pd.DataFrame
    chaos_mechanism: pd.DataFrame
    portraits: tuple[Portrait, ...]
    model: str
    suite: str
    windows: int
    forecast_windows: int
    draws: int
    samples: int | None
    skipped: tuple[tuple[str, str], ...]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name."""
        every = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in every.items() if isinstance(value, pd.DataFrame)}


def windows_to_forecast(model: Forecaster, per_configuration: int) -> int:
    """Of how many windows of each configuration forecasts are made without heads: hundreds of each.

    All of them; with models of tokens a quarter, and at most `STEPWISE_WINDOWS`. Their every step is a pass
    of the network, after which no other step can be replayed.
    """
    if not model.anatomy.tokens:
        return per_configuration
    return min(STEPWISE_WINDOWS, math.ceil(per_configuration / 4))


@checked
@worthwhile
def overview(
    model: Forecaster,
    suite: Suite,
    *,
    per_configuration: int = PER_CONFIGURATION,
    effects: bool = True,
    percents: Sequence[int] = PERCENTS,
    draws: int = DRAWS,
    trajectories: Suite | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Explanation:
    """Explains a model on a suite: attention, induction, residual stream, attribution, effects of heads.

    per_configuration : at most so many windows of each configuration, evenly spread
    effects : whether heads are also ablated, alone and in sets, which takes most of the time
    percents, draws : of the sets of heads (see `head_effects`)
    trajectories : chaotic ones (`tsprune.data.chaos()`), on which forecasts are looked at, too

    What a model's anatomy does not support is left out and listed in `skipped`.

    Raises TspruneError for a suite without windows.
    """
    steps = _Steps(progress)
    forecast = windows_to_forecast(model, per_configuration)
    how: dict[str, int] = {"per_configuration": per_configuration, "seed": seed}

    steps.started("attention")
    seen = attention(model, suite, **how)
    repeated = steps.tried("induction", lambda: induction(model, seed=seed))
    steps.started("residual")
    stream, decoded = residual(model, suite, **how), lens(model, suite, **how)
    guarded = steps.tried("guard", lambda: lens_guard(model, guard_contexts(model, suite)))
    written = steps.tried("attribution", lambda: attribution(model, suite, **how))
    sharpness = seen.heads.set_index("address")["sharpness"].to_dict()
    found = HeadEffects(pd.DataFrame(), pd.DataFrame(), {})
    if effects:
        found = head_effects(
            model,
            suite,
            sharpness,
            per_configuration=forecast,
            percents=percents,
            draws=draws,
            seed=seed,
            progress=lambda done, total: steps.started("effects", done, total),
        )
    heads = _heads(model, seen.heads, repeated, written, found.heads)
    chaos = _on_chaos(steps, model, trajectories, sharpness if effects else {}, seed)
    steps.started("portraits")
    return Explanation(
        heads=heads,
        attention=seen.heads,
        profile=seen.profile,
        kernel=kernel_view(model, seen),
        induction=repeated,
        residual=stream.layers,
        cka=stream.cka,
        lens=decoded,
        guard=guarded,
        attribution=written,
        effects=found.sets,
        **_conclusions(model, found, repeated, heads, seed),
        clean=_clean(found),
        chaos=chaos[0],
        chaos_mechanism=chaos[1],
        portraits=portraits(model, suite, heads, per_configuration=forecast),
        model=model.name,
        suite=suite.name,
        windows=len(sampled(suite, model, per_configuration)),
        forecast_windows=len(sampled(suite, model, forecast)),
        draws=draws,
        samples=model.samples if isinstance(model, SamplingForecaster) else None,
        skipped=tuple(steps.skipped),
    )


class _Steps:
    """Says which step is being made, and keeps the reasons of those that could not be.

    skipped : (step, reason)
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.skipped: list[tuple[str, str]] = []

    def started(self, step: str, done: int = 0, total: int = 1) -> None:
        if self._progress is not None:
            self._progress(step, done, total)

    def tried(self, step: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """What `measure` returns; nothing, and a reason, if it raises TspruneError."""
        self.started(step)
        try:
            return measure()
        except TspruneError as error:
            self.skipped.append((step, str(error)))
            return pd.DataFrame()


def _conclusions(
    model: Forecaster, found: HeadEffects, repeated: pd.DataFrame, heads: pd.DataFrame, seed: int
) -> dict[str, pd.DataFrame]:
    """What follows from ablating heads: tables of `Explanation`, all of them empty if none was."""
    if not len(found.sets):
        names = ("by_share", "mechanism", "induction_effects", "correlations")
        return {name: pd.DataFrame() for name in names}
    linked = induction_and_parroting(repeated, found.heads) if len(repeated) else pd.DataFrame()
    return {
        "by_share": by_share({model.name: found}),
        "mechanism": mechanism_table({model.name: found}, {model.name: heads}, seed=seed),
        "induction_effects": linked,
        "correlations": head_correlations(heads),
    }


def _on_chaos(
    steps: _Steps, model: Forecaster, trajectories: Suite | None, sharpness: Mapping[str, float], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`chaotic_traits` and `chaotic_mechanism`; the latter empty without `sharpness`."""
    if trajectories is None:
        return pd.DataFrame(), pd.DataFrame()
    per_system = windows_to_forecast(model, PER_SYSTEM)
    traits = steps.tried(
        "chaos", lambda: chaotic_traits(model, trajectories, per_system=per_system, seed=seed)
    )
    if not sharpness or not len(traits):
        return traits, pd.DataFrame()
    judged = steps.tried(
        "chaos", lambda: chaotic_mechanism(model, trajectories, sharpness, per_system=per_system, seed=seed)
    )
    return traits, judged


def _clean(found: HeadEffects) -> pd.DataFrame:
    return pd.DataFrame(
        {"trait": trait, "excess": x.value, "low": x.low, "high": x.high, "units": x.count}
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
