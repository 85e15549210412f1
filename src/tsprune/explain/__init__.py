"""Why a component matters: properties of the forecasts it makes."""

from tsprune.explain.forecast_traits import dominant_period, parroting, seasonal_share

__all__ = ["dominant_period", "parroting", "seasonal_share"]
