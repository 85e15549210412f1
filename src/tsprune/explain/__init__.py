"""Why a component matters: what it attends to, what it writes, and what forecasts lack without it."""

from tsprune.explain.attention_maps import AttentionStatistics, attention
from tsprune.explain.attribution.contributions import Attribution, attribution, contributions
from tsprune.explain.attribution.residual_stream import Residual, lens, lens_guard, residual
from tsprune.explain.baselines import NadarayaWatson, Parrot, nadaraya_watson, parrot
from tsprune.explain.chaotic import chaotic_mechanism, chaotic_traits
from tsprune.explain.examples import Example
from tsprune.explain.forecast_traits import dominant_period, mean_reversion, parroting, seasonal_share
from tsprune.explain.head_correlations import head_correlations
from tsprune.explain.induction import induction, induction_and_parroting
from tsprune.explain.kernel import kernel_view
from tsprune.explain.mechanism import HeadEffects, head_effects
from tsprune.explain.mechanism_claims import by_share, mechanism_table
from tsprune.explain.overview import EXPLAIN_SAMPLES, STEPWISE_SAMPLES, Explanation, overview
from tsprune.explain.portraits import Glance, Portrait, portraits
from tsprune.explain.suite_traits import forecast_traits

__all__ = [
    "EXPLAIN_SAMPLES",
    "STEPWISE_SAMPLES",
    "AttentionStatistics",
    "Attribution",
    "Example",
    "Explanation",
    "Glance",
    "HeadEffects",
    "NadarayaWatson",
    "Parrot",
    "Portrait",
    "Residual",
    "attention",
    "attribution",
    "by_share",
    "chaotic_mechanism",
    "chaotic_traits",
    "contributions",
    "dominant_period",
    "forecast_traits",
    "head_correlations",
    "head_effects",
    "induction",
    "induction_and_parroting",
    "kernel_view",
    "lens",
    "lens_guard",
    "mean_reversion",
    "mechanism_table",
    "nadaraya_watson",
    "overview",
    "parrot",
    "parroting",
    "portraits",
    "residual",
    "seasonal_share",
]
