"""A model as a gluonts `Predictor`, for gluonts' evaluation and for code that takes predictors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tsprune.arguments import RULES
from tsprune.errors import TspruneError
from tsprune.models.contexts import checked_horizon
from tsprune.models.forecast import Forecast
from tsprune.models.forecaster import Forecaster

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # gluonts advises a faster JSON package
    from gluonts.model.forecast import QuantileForecast
    from gluonts.model.predictor import Predictor as _GluontsPredictor


class ModelPredictor(_GluontsPredictor):  # type: ignore[misc]  # gluonts has no types
    """See `as_gluonts`."""

    def __init__(self, model: Forecaster, prediction_length: int, batch_size: int) -> None:
        super().__init__(prediction_length)
        self.model = model
        self.batch_size = batch_size

    def predict(self, dataset: Iterable[Mapping[str, Any]], **kwargs: Any) -> Iterator[QuantileForecast]:
        """One forecast per entry, in their order.

        dataset : entries with a univariate `target` [T], NaN where missing, and a `start` (a pandas Period)

        Raises TspruneError for a multivariate target, and as `Forecaster.forecast` does.
        """
        entries = iter(dataset)
        while batch := list(islice(entries, self.batch_size)):
            contexts = [np.asarray(entry["target"]) for entry in batch]
            if any(context.ndim != 1 for context in contexts):
                raise TspruneError(
                    f"{self.model.name} forecasts single series; split multivariate entries (gluonts' "
                    "MultivariateGrouper made them, or set one_dim_target)"
                )
            found = self.model.forecast(contexts, self.prediction_length)
            for row, entry in enumerate(batch):
                yield _of_entry(found, row, entry)

    def serialize(self, path: Path) -> None:
        """Refused: `Forecaster.save` writes the model."""
        raise TspruneError("save the model with its save method, and make a predictor of the loaded model")


def as_gluonts(model: Forecaster, prediction_length: int, *, batch_size: int = 64) -> ModelPredictor:
    """A gluonts predictor of a model.

    prediction_length : steps to forecast
    batch_size : entries forecast together

    Its forecasts are `QuantileForecast`s with the levels of the model, and the mean of models that sample.

    Raises TspruneError for numbers out of range.

    >>> import tsprune
    >>> predictor = as_gluonts(tsprune.load("bundled:timesfm"), 12)
    >>> predictor.prediction_length
    12
    """
    return ModelPredictor(model, checked_horizon(prediction_length), RULES["batch_size"](batch_size))


def _of_entry(found: Forecast, row: int, entry: Mapping[str, Any]) -> QuantileForecast:
    arrays, keys = found.quantiles[row], [str(level) for level in found.levels]
    if found.samples is not None:
        arrays, keys = np.concatenate([arrays, found.point[row, None]]), [*keys, "mean"]
    start = entry["start"] + len(entry["target"])
    return QuantileForecast(arrays, start, keys, item_id=entry.get("item_id"), info=entry.get("info"))
