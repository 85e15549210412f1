"""All measurements of a model's heads and layers in one call."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import pandas as pd

from tsprune.arguments import checked
from tsprune.cost.threads import worthwhile
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import PER_CONFIGURATION, sampled
from tsprune.explain.attention_maps import ATTENTION_TABLE, LAG_PROFILE, AttentionStatistics, attention
from tsprune.explain.attribution import residual_stream
from tsprune.explain.attribution.contributions import ATTRIBUTION, attribution
from tsprune.explain.carriers import CARRIERS, carriers
from tsprune.explain.chaotic import CHAOS, PER_SYSTEM, PIECES, chaotic_mechanism, chaotic_traits
from tsprune.explain.head_correlations import (
    CORRELATIONS,
    INDUCTION_EFFECTS,
    KERNEL,
    head_correlations,
    induction_and_parroting,
    kernel_view,
)
from tsprune.explain.induction import INDUCTION, TARGETS, induction
from tsprune.explain.mechanism import (
    EFFECT_COLUMNS,
    RANDOM_SETS,
    SET_EFFECTS,
    SET_SHARES,
    HeadEffects,
    head_effects,
)
from tsprune.explain.mechanism_claims import BY_SHARE, MECHANISM, by_share, mechanism_table
from tsprune.explain.portraits import Portrait, portraits
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.progress import Pieces, Progress, showing, within
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, estimated
from tsprune.scores.stable_rank import stable_ranks
from tsprune.sweeps.kept_tables import KeptTables, Tables
from tsprune.sweeps.store import open_store

# paths per window: an explanation forecasts each window hundreds of times, and its comparisons are paired
# (`tsprune.models.draws`); odd numbers, so that the median is a path
EXPLAIN_SAMPLES = 9
EXPLAIN_TOKEN_SAMPLES = 5
# windows per configuration with models of tokens, which run once per step of every path
_TOKEN_WINDOWS = 2

STAGES = (
    "attention", "induction", "residual", "lens", "guard", "attribution", "effects", "chaos", "portraits",
)  # fmt: skip

HEAD_TABLE = Schema(
    "heads",
    *ATTENTION_TABLE,
    Column("stable_rank", "of the head's weights"),
    Column("stable_rank_effective", "of the head's effective weights"),
    *(Column(f"{t}_score", "mean over blocks and repeats", "share", optional=True) for t in TARGETS),
    Column("followed_sure", "combinations whose interval is above 0", "share", optional=True),
    Column("share", "of the forecast, or of an encoder's fetched content", "share", optional=True),
    Column("size", "mean absolute share", "share", optional=True),
    *EFFECT_COLUMNS,
)
CLEAN_TRAITS = Schema(
    "clean",
    Column("trait", "of the unablated forecast", dtype="text"),
    *estimated("excess", "over the true future's", limits=""),
    Column("units", "configurations, or series of a single one", dtype="count"),
)
# tables of an explanation by field
EXPLANATION_TABLES: Mapping[str, Schema] = {
    "carriers": CARRIERS,
    "heads": HEAD_TABLE,
    "attention": ATTENTION_TABLE,
    "profile": LAG_PROFILE,
    "kernel": KERNEL,
    "induction": INDUCTION,
    "residual": residual_stream.RESIDUAL,
    "cka": residual_stream.CKA,
    "lens": residual_stream.LENS,
    "guard": residual_stream.GUARD,
    "attribution": ATTRIBUTION,
    "effects": SET_EFFECTS,
    "by_share": BY_SHARE,
    "induction_effects": INDUCTION_EFFECTS,
    "clean": CLEAN_TRAITS,
    "mechanism": MECHANISM,
    "correlations": CORRELATIONS,
    "chaos": CHAOS,
    "chaos_mechanism": MECHANISM,
}


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Tables of `overview`, whose columns are in `EXPLANATION_TABLES`, and portraits of extreme heads.

    carriers : of `tsprune.explain.carriers`: the heads that carry parroting and seasonality, ranked; empty
        without effects
    heads : one row per head, all measurements side by side
    attention, profile : of `attention`; residual, cka : of `residual`
    kernel, induction, lens, guard, attribution : of `kernel_view`, `induction`, `lens`, `lens_guard`,
        `attribution`
    effects, by_share, induction_effects, clean, mechanism, correlations : of `head_effects` and its
        evaluations; empty without effects
    chaos, chaos_mechanism : of `chaotic_traits` and `chaotic_mechanism`; empty without trajectories
    windows, forecast_windows : windows measured, and windows forecast without heads (`windows_to_forecast`)
    draws : random sets of heads per share
    samples : paths per window; None if the model does not sample
    skipped : (part, reason) of parts that could not be measured
    """

    carriers: pd.DataFrame
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
        return {name: getattr(self, name) for name in EXPLANATION_TABLES}


def windows_to_forecast(model: Forecaster, per_configuration: int) -> int:
    """Windows per configuration that are forecast without heads, hundreds of times each.

    All of them; for models of tokens a quarter, and at most two: each step of their forecasts is a pass of
    the network, and later steps cannot be replayed.
    """
    if not model.anatomy.tokens:
        return per_configuration
    return min(_TOKEN_WINDOWS, math.ceil(per_configuration / 4))


@checked
@worthwhile
def overview(
    model: Forecaster,
    suite: Suite,
    *,
    per_configuration: int = PER_CONFIGURATION,
    effects: bool = True,
    shares: Sequence[float] = SET_SHARES,
    draws: int = RANDOM_SETS,
    trajectories: Suite | None = None,
    **options: Unpack[Options],
) -> Explanation:
    """Explains a model on a suite: attention, induction, residual stream, attribution, effects of heads.

    per_configuration : windows per configuration, at most, evenly spread
    effects : whether heads are also ablated, alone and in sets, which takes most of the time
    shares, draws : of the sets of heads (see `head_effects`)
    trajectories : chaotic ones (`tsprune.data.chaos()`), which are forecast as well
    options : keywords of `tsprune.run_options.RunOptions`, used as in the functions for each table. With a
        `store`, an explanation that was stopped goes on

    Parts that the model's anatomy does not support are left out and listed in `skipped`.

    Raises TspruneError for a suite without windows.
    """
    chosen = RunOptions(**options)
    with showing(chosen.progress) as progress, open_store(chosen.store) as store:
        chosen = chosen.replace(progress=progress, store=store)
        options = chosen.keywords()
        steps = _Steps(progress, KeptTables(store, model, chosen), suite, per_configuration)
        forecast = windows_to_forecast(model, per_configuration)
        seen = AttentionStatistics(
            **steps.kept(
                "attention",
                lambda: vars(attention(model, suite, per_configuration=per_configuration, **options)),
            )
        )
        repeated = steps.tried("induction", lambda: induction(model, seed=chosen.seed, progress=progress))
        stream = residual_stream.Residual(
            **steps.kept(
                "residual",
                lambda: vars(
                    residual_stream.residual(model, suite, per_configuration=per_configuration, **options)
                ),
            )
        )
        decoded = steps.kept(
            "lens",
            lambda: {
                "lens": residual_stream.lens(model, suite, per_configuration=per_configuration, **options)
            },
        )["lens"]
        guarded = steps.tried(
            "guard",
            lambda: residual_stream.lens_guard(
                model, residual_stream.guard_contexts(model, suite), progress=progress
            ),
        )
        written = steps.tried(
            "attribution", lambda: attribution(model, suite, per_configuration=per_configuration, **options)
        )
        sharpness = seen.heads.set_index("address")["sharpness"].to_dict() if effects else {}
        found = HeadEffects(pd.DataFrame(), pd.DataFrame(), {})
        if effects:
            found = head_effects(
                model, suite, sharpness, per_configuration=forecast, shares=shares, draws=draws, **options
            )
        heads = _heads(model, seen.heads, repeated, written, found.heads)
        chaos = _on_chaos(steps, model, trajectories, sharpness, options)
        return Explanation(
            carriers=carriers(found.heads),
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
            **_conclusions(model, found, repeated, heads, chosen.seed),
            chaos=chaos[0],
            chaos_mechanism=chaos[1],
            portraits=portraits(model, suite, heads, per_configuration=forecast, **options),
            model=model.name,
            suite=suite.name,
            windows=len(sampled(suite, model, per_configuration)),
            forecast_windows=len(sampled(suite, model, forecast)),
            draws=draws,
            samples=model.samples if isinstance(model, SamplingForecaster) else None,
            skipped=tuple(steps.skipped),
        )


class _Steps:
    """Measures, or remembers, the parts of an explanation, and collects (part, reason) of those that fail."""

    def __init__(self, progress: Progress, tables: KeptTables, suite: Suite, per_configuration: int) -> None:
        self.progress = progress
        self.skipped: list[tuple[str, str]] = []
        self._tables, self._suite, self._most = tables, suite, per_configuration

    def kept(self, stage: str, measure: Callable[[], Tables], **arguments: object) -> Tables:
        """The tables of `measure`, or those of an earlier run with the same `arguments`."""
        self.progress(stage, 0, 0)
        arguments |= {"stage": stage, "per_configuration": self._most}
        return self._tables.get("explanation", measure, self._suite, **arguments)

    def tried(self, stage: str, measure: Callable[[], pd.DataFrame], **arguments: object) -> pd.DataFrame:
        """The `kept` table of `measure`; an empty one, and its reason, if it raises TspruneError."""
        try:
            return self.kept(stage, lambda: {stage: measure()}, **arguments)[stage]
        except TspruneError as error:
            self.skipped.append((stage, str(error)))
            return pd.DataFrame()


def _conclusions(
    model: Forecaster, found: HeadEffects, repeated: pd.DataFrame, heads: pd.DataFrame, seed: int
) -> dict[str, pd.DataFrame]:
    """Tables of `Explanation` evaluated from the effects of heads; empty without effects."""
    if not len(found.sets):
        names = ("by_share", "mechanism", "induction_effects", "correlations", "clean")
        return {name: pd.DataFrame() for name in names}
    return {
        "by_share": by_share({model.name: found}),
        "mechanism": mechanism_table({model.name: found}, {model.name: heads}, seed=seed),
        "induction_effects": induction_and_parroting(repeated, found.heads) if len(repeated) else repeated,
        "correlations": head_correlations(heads),
        "clean": CLEAN_TRAITS.frame(
            {"trait": trait} | excess.row("excess", count="units") for trait, excess in found.clean.items()
        ),
    }


def _on_chaos(
    steps: _Steps,
    model: Forecaster,
    trajectories: Suite | None,
    sharpness: Mapping[str, float],
    options: Options,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`chaotic_traits` and `chaotic_mechanism`; the latter empty without `sharpness`."""
    traits = judged = pd.DataFrame()
    if trajectories is not None:
        count = windows_to_forecast(model, PER_SYSTEM)
        pieces = Pieces(within(steps.progress, "chaos"), PIECES)
        quiet: Options = {**options, "progress": pieces.next()}
        on = trajectories.fingerprint
        traits = steps.tried(
            "chaos", lambda: chaotic_traits(model, trajectories, per_system=count, **quiet), traits=on
        )
        quiet["progress"] = pieces.next()
        if sharpness and len(traits):
            judged = steps.tried(
                "chaos",
                lambda: chaotic_mechanism(model, trajectories, sharpness, per_system=count, **quiet),
                mechanism=on,
            )
    return traits, judged


def _heads(
    model: Forecaster,
    seen: pd.DataFrame,
    repeated: pd.DataFrame,
    written: pd.DataFrame,
    effects: pd.DataFrame,
) -> pd.DataFrame:
    parts = [stable_ranks(model)[["address", "stable_rank", "stable_rank_effective"]]]
    if len(repeated):
        by_head = repeated.groupby("address")
        known = repeated[repeated["followed_score_low"].notna()]
        sure = (known["followed_score_low"] > 0).groupby(known["address"]).mean().rename("followed_sure")
        parts.append(by_head[[f"{target}_score" for target in TARGETS]].mean().join(sure).reset_index())
    if len(written):
        shares = written.loc[written["kind"] == "head", ["part", "share", "size"]]
        parts.append(shares.rename(columns={"part": "address"}))
    if len(effects):
        parts.append(effects)
    for part in parts:
        seen = seen.merge(part, on="address", how="left")
    return HEAD_TABLE.checked(seen)
