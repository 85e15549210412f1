"""`predict_df`, which whatever forecasts series can do with a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from tsprune.arguments import RULES
from tsprune.models.contexts import checked_horizon
from tsprune.models.forecast import LEVELS, Predictor

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.predict_df import LongTable


class TablePredictor:
    """Forecasts tables by its `forecast`."""

    def predict_df(
        self,
        df: pd.DataFrame,
        *,
        prediction_length: int,
        id_column: str = "item_id",
        timestamp_column: str = "timestamp",
        target: str | list[str] = "target",
        quantile_levels: Sequence[float] = LEVELS,
        batch_size: int = 256,
        validate_inputs: bool = True,
        freq: str | None = None,
    ) -> pd.DataFrame:
        """Forecasts the series of a long table, as `predict_df` of chronos-forecasting's pipelines does.

        df : one row per series and time, in any order. Columns other than the named ones are past covariates
            of Chronos-2, numbers or categories, as upstream takes them; for others they do not matter
        target : several columns are variates of one series, which `multivariate` families read together
        batch_size : series forecast together
        validate_inputs : for compatibility; a table is always checked
        freq : frequency of the times; None infers it

        Returns the columns id, timestamp, `target_name`, `predictions` (the mean of the paths, or the median
        of models that do not sample) and "0.1", ... (`Forecast.at`), one row per series, target and step.

        Raises FrameError (a TspruneError and ValueError) for a missing column, and for times without a
        common frequency; errors of `forecast` otherwise.
        """
        from tsprune.models.predict_df import LongTable, predict_frame, target_names  # pandas

        targets, names = target_names(target), (id_column, timestamp_column)
        table = LongTable.read(df, id_column, timestamp_column, targets)
        table = self._with_covariates(table, df, names, targets)
        return predict_frame(
            cast("Predictor", self),
            table,
            checked_horizon(prediction_length),
            names=names,
            targets=targets,
            levels=quantile_levels,
            batch_size=RULES["batch_size"](batch_size),
            freq=freq,
        )

    def _with_covariates(
        self, table: LongTable, df: pd.DataFrame, names: tuple[str, str], targets: Sequence[str]
    ) -> LongTable:
        """`table` with the past covariates that upstream's `predict_df` reads; most families read none."""
        return table
