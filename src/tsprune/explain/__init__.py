"""Why a component matters: what it attends to, what it writes, and what forecasts lack without it."""

from tsprune.explain.attention_maps import AttentionStatistics, attention
from tsprune.explain.baselines import NadarayaWatson, Parrot, nadaraya_watson, parrot
from tsprune.explain.forecast_traits import dominant_period, parroting, seasonal_share
from tsprune.explain.kernel import kernel_view

__all__ = [
    "AttentionStatistics",
    "NadarayaWatson",
    "Parrot",
    "attention",
    "dominant_period",
    "kernel_view",
    "nadaraya_watson",
    "parrot",
    "parroting",
    "seasonal_share",
]
