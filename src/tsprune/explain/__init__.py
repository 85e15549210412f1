"""Why a component matters: its attention, its writes, and the change of forecasts without it."""

from tsprune.explain.attention_maps import AttentionStatistics, attention
from tsprune.explain.attribution.contributions import Attribution, attribution, contributions
from tsprune.explain.attribution.residual_stream import Residual, lens, lens_guard, residual
from tsprune.explain.chaotic import NadarayaWatson, Parrot, chaotic_mechanism, chaotic_traits
from tsprune.explain.examples import Example
from tsprune.explain.forecast_traits import (
    dominant_period,
    forecast_traits,
    mean_reversion,
    parroting,
    seasonal_share,
)
from tsprune.explain.head_correlations import head_correlations, kernel_view
from tsprune.explain.induction import induction
from tsprune.explain.mechanism import HeadEffects, head_effects
from tsprune.explain.mechanism_claims import mechanism_table
from tsprune.explain.overview import EXPLANATION_TABLES, Explanation, overview
from tsprune.explain.portraits import Glance, Portrait, portraits

__all__ = [
    "EXPLANATION_TABLES", "AttentionStatistics", "Attribution", "Example", "Explanation", "Glance",
    "HeadEffects", "NadarayaWatson", "Parrot", "Portrait", "Residual", "attention", "attribution",
    "chaotic_mechanism", "chaotic_traits", "contributions", "dominant_period", "forecast_traits",
    "head_correlations", "head_effects", "induction", "kernel_view", "lens", "lens_guard",
    "mean_reversion", "mechanism_table", "overview", "parroting", "portraits", "residual",
    "seasonal_share",
]  # fmt: skip
