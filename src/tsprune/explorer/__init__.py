"""`tsprune explore`: a model as a map of its components, and forecasts with and without them."""

from tsprune.explorer.session import Session

__all__ = ["Session"]
