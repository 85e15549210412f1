"""`load_exported`: a forecaster on numpy and ONNX Runtime, without torch and the upstream package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import checked
from tsprune.deployment.description import GRAPH, Description, read_description
from tsprune.errors import TspruneError, one_line
from tsprune.extras import install
from tsprune.files import user_path
from tsprune.models.contexts import checked_contexts, checked_horizon, padded
from tsprune.models.forecast import Forecast, NotFiniteError
from tsprune.models.table_predictor import TablePredictor
from tsprune.models.variates import rows_of

_ROWS = 64  # series that are forecast together: more take memory, and are no faster


class Exported(TablePredictor):
    """An exported model. It forecasts, and can be evaluated and timed; it cannot be ablated.

    Attributes
    ----------
    name : the folder, as the user wrote it
    description : the content of tsprune-export.json (`Description`)
    """

    def __init__(self, name: str, description: Description, session: Any, weight_bytes: int) -> None:
        self.name = name
        self.description = description
        self.weight_bytes = weight_bytes
        self._session = session

    @property
    def family(self) -> str:
        return self.description.family

    @property
    def context_length(self) -> int:
        """History longer than this many steps is cut off in front."""
        return self.description.context_length

    @property
    def horizon(self) -> int:
        """The most steps that it forecasts."""
        return self.description.horizon

    @property
    def parameter_count(self) -> int:
        return self.description.parameters

    def __repr__(self) -> str:
        about = self.description
        return (
            f"<{self.name}: {about.name} exported ({about.family}, {about.precision}), "
            f"{about.parameters:,} parameters, up to {about.horizon} steps>"
        )

    def passes(self, horizon: int) -> int:
        """The size of the graph's second input for a horizon; forecasts of one size are alike, 0: all are.

        A shorter one of them is the beginning of a longer one.
        """
        span = self.description.future_span
        return -(-horizon // span) if span else 0

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        """Forecasts B series as `Forecaster.forecast` of the model that was exported.

        Contexts and errors are the same; also TspruneError for more than `self.horizon` steps. Variates of a
        multivariate context are forecast each by itself, also of models that read them together. Quantiles of
        fp32 differ by rounding, those of int8 by about `description.distance` of the largest.
        """
        series, steps = checked_contexts(contexts), checked_horizon(horizon)
        if steps > self.horizon:
            raise TspruneError(
                f"{self.name} was exported for up to {self.horizon} steps, not {steps}; "
                f"export the model again with --horizon {steps}"
            )
        kept = [self._kept(values) for values in rows_of(series)]
        parts = [self._forecast(kept[start : start + _ROWS], steps) for start in range(0, len(kept), _ROWS)]
        quantiles = np.concatenate(parts)[..., :steps]
        forecast = Forecast(np.ascontiguousarray(quantiles), self.description.levels)
        finite = forecast.finite()
        if not finite.all():
            where = int(np.argmin(finite))
            raise NotFiniteError(f"{self.name}: the forecast is not finite for series {where}", forecast)
        return forecast

    def _kept(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The end of a series that the graph sees."""
        limit = self.context_length
        kept = values[-limit:]
        if self.description.fills_gaps and len(values) > limit and np.isnan(kept[0]):
            observed = np.flatnonzero(~np.isnan(values))
            if len(observed) and observed[0] < len(values) - limit:  # the gap begins before the cut
                kept[0] = np.interp(len(values) - limit, observed, values[observed])
        return kept

    def _forecast(self, series: list[NDArray[np.float32]], steps: int) -> NDArray[np.float32]:
        """Quantiles [B, Q, at least `steps`]."""
        before = np.inf if self.description.marks_padding else np.nan
        inputs = {"context": padded(series, self.description.span, before)}
        if count := self.passes(steps):
            inputs["future"] = np.zeros(count, dtype=np.float32)
        try:
            (quantiles,) = self._session.run(None, inputs)
        except Exception as error:  # of classes that ONNX Runtime makes up
            raise TspruneError(f"{self.name}: ONNX Runtime failed ({one_line(error, 200)})") from None
        expected = (len(series), len(self.description.levels), steps)
        if quantiles.shape[:2] != expected[:2] or quantiles.shape[2] < steps:
            raise TspruneError(f"{self.name}: the graph returns {quantiles.shape}, not {expected}")
        found: NDArray[np.float32] = quantiles
        return found


@checked
def load_exported(folder: str | Path, *, threads: int | None = None) -> Exported:
    """Loads a model that `tsprune export` wrote. Imports neither torch nor the upstream package.

    threads : of ONNX Runtime; None: one a core

    Raises TspruneError with one line if the folder holds no exported model, or if ONNX Runtime is missing or
    cannot read the graph.

    >>> import tsprune
    >>> tsprune.load_exported("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tsprune.errors.TspruneError: nowhere holds no exported model (no tsprune-export.json)...
    """
    path = user_path(folder)
    description = read_description(path)
    if not (path / GRAPH).is_file():
        raise TspruneError(f"{folder}: {GRAPH} is missing; export the model again")
    size = sum((path / name).stat().st_size for name in description.files if (path / name).is_file())
    return Exported(str(folder), description, session(path / GRAPH, threads), size)


def session(graph: Path, threads: int | None = None) -> Any:
    """An InferenceSession of ONNX Runtime on the CPU; TspruneError as in `load_exported`."""
    try:
        import onnxruntime
    except ImportError:
        raise TspruneError(f"ONNX Runtime is not installed; install it with: {install('onnx')}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors
    # threads that wait within a forecast are quick, and those that wait for one take cores from others
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that ONNX Runtime makes up
        raise TspruneError(f"{graph}: ONNX Runtime cannot read it ({one_line(error, 200)})") from None
