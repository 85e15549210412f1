"""A model as a gluonts `Predictor`, for gluonts' evaluation and for code that takes predictors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

        dataset : entries with a `target` [T] or [V, T], NaN where missing, and a `start` (a pandas Period).
            Variates are read together by `multivariate` families

        Raises TspruneError as `Forecaster.forecast` does.
        """
        entries = iter(dataset)
        while batch := list(islice(entries, self.batch_size)):
            contexts = [np.asarray(entry["target"]) for entry in batch]
            found = self.model.forecast(contexts, self.prediction_length)
            rows = np.cumsum([0, *(len(np.atleast_2d(context)) for context in contexts)])
            for entry, context, first, stop in zip(batch, contexts, rows[:-1], rows[1:], strict=True):
                yield _of_entry(found.select(slice(first, stop)), context, entry)

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


def _of_entry(found: Forecast, context: NDArray[Any], entry: Mapping[str, Any]) -> QuantileForecast:
    arrays, keys = found.quantiles, [str(level) for level in found.levels]
    if found.samples is not None:
        arrays, keys = np.concatenate([arrays, found.point[:, None]], axis=1), [*keys, "mean"]
    # gluonts has variates last, and no such axis in a univariate forecast
    arrays = arrays[0] if context.ndim == 1 else arrays.transpose(1, 2, 0)
    start = entry["start"] + context.shape[-1]
    return QuantileForecast(arrays, start, keys, item_id=entry.get("item_id"), info=entry.get("info"))
