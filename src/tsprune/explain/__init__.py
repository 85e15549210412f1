"""Why a component matters: what it attends to, what it writes, and what forecasts lack without it."""

from tsprune.explain.attention_maps import AttentionStatistics, attention
from tsprune.explain.baselines import NadarayaWatson, Parrot, nadaraya_watson, parrot
from tsprune.explain.forecast_traits import dominant_period, mean_reversion, parroting, seasonal_share
from tsprune.explain.kernel import kernel_view
from tsprune.explain.mechanism import HeadEffects, head_effects, verdicts
from tsprune.explain.traits import forecast_traits

__all__ = [
    "AttentionStatistics",
    "HeadEffects",
    "NadarayaWatson",
    "Parrot",
    "attention",
    "dominant_period",
    "forecast_traits",
    "head_effects",
    "kernel_view",
    "mean_reversion",
    "nadaraya_watson",
    "parrot",
    "parroting",
    "seasonal_share",
    "verdicts",
]
