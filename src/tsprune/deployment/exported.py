"""`load_exported`: a forecaster on ONNX Runtime, OpenVINO or torch, without the upstream package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsprune.arguments import RULES, checked
from tsprune.choices import TORCH_EXPORT
from tsprune.deployment.description import Description, read_description
from tsprune.deployment.graph_sessions import GraphSession, graph_session
from tsprune.errors import TspruneError, one_line
from tsprune.files import user_path
from tsprune.models.contexts import checked_contexts, checked_horizon, padded
from tsprune.models.forecast import Forecast, NotFiniteError, concatenated
from tsprune.models.sampled_paths import sampling_of
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

    def __init__(self, name: str, description: Description, session: GraphSession, weight_bytes: int) -> None:
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
        most = self._most(steps)
        parts = [self._forecast(kept[start : start + most], steps) for start in range(0, len(kept), most)]
        forecast = concatenated(parts).until(steps)
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

    def _most(self, steps: int) -> int:
        """How many series are forecast together, so many steps."""
        return _ROWS

    def _forecast(self, series: list[NDArray[np.float32]], steps: int) -> Forecast:
        """The forecast of at least `steps`."""
        before = np.inf if self.description.marks_padding else np.nan
        inputs = {"context": padded(series, self.description.span, before)}
        if count := self.passes(steps):
            inputs["future"] = np.zeros(count, dtype=np.float32)
        (quantiles,) = self._run(self._session, inputs)
        expected = (len(series), len(self.description.levels), steps)
        if quantiles.shape[:2] != expected[:2] or quantiles.shape[2] < steps:
            raise TspruneError(f"{self.name}: the graph returns {quantiles.shape}, not {expected}")
        return Forecast(quantiles, self.description.levels)

    def _run(self, session: GraphSession, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        try:
            found: list[NDArray[np.float32]] = session.run(None, inputs)
        except Exception as error:  # of classes that runtimes make up
            raise TspruneError(f"{self.name}: the runtime failed ({one_line(error, 200)})") from None
        return found


class ExportedSampler(Exported):
    """An exported model that draws paths: the graph of the history, and that of one step if it has one.

    The same seed gives the same paths as the model that was exported, but for a draw that falls within
    rounding of the border between two tokens, components or counts.
    """

    def __init__(
        self,
        name: str,
        description: Description,
        session: GraphSession,
        weight_bytes: int,
        step: GraphSession | None,
    ) -> None:
        super().__init__(name, description, session, weight_bytes)
        assert description.sampling is not None
        self._step = step
        self._sampling = sampling_of(description.sampling)

    @property
    def samples(self) -> int:
        """Paths of a series; settable."""
        return self._sampling.samples

    @samples.setter
    def samples(self, samples: int) -> None:
        self._sampling = dataclasses.replace(self._sampling, samples=RULES["samples"](samples))

    @property
    def seed(self) -> int:
        """Seed of the draws; settable."""
        return self._sampling.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._sampling = dataclasses.replace(self._sampling, seed=RULES["seed"](seed))

    def _most(self, steps: int) -> int:
        return self._sampling.together(steps)

    def _forecast(self, series: list[NDArray[np.float32]], steps: int) -> Forecast:
        def run(session: GraphSession | None, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
            if session is None:  # a second pass is asked for only where it was exported
                missing = self.description.step
                raise TspruneError(f"{self.name}: {missing} is missing; export the model again")
            names = (one.name for one in session.get_inputs())
            return self._run(session, dict(zip(names, inputs, strict=True)))

        encode, step = partial(run, self._session), partial(run, self._step)
        return Forecast.of_paths(self._sampling.paths(series, steps, encode, step))


@checked
def load_exported(folder: str | Path, *, threads: int | None = None, device: str | None = None) -> Exported:
    """Loads a model that `tsprune export` wrote. Imports no upstream package, and torch for its own programs.

    threads : of the runtime; None: one a core
    device : for torch's programs; None: CUDA if there is one, else the CPU. Other formats run on the CPU

    Nothing in the folder is unpickled or executed. Raises TspruneError with one line if the folder holds no
    exported model, or if the runtime is missing or cannot read the graph.

    >>> import tsprune
    >>> tsprune.load_exported("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tsprune.errors.TspruneError: nowhere holds no exported model (no tsprune-export.json)...
    """
    path = user_path(folder)
    description = read_description(path)
    if not (path / description.graph).is_file():
        raise TspruneError(f"{folder}: {description.graph} is missing; export the model again")
    return open_export(path, description, str(folder), threads, device=device)


def open_export(
    folder: Path, about: Description, name: str, threads: int | None = None, *, device: str | None = "cpu"
) -> Exported:
    """The exported model in a folder; TspruneError as in `load_exported`."""
    if about.graph_format != TORCH_EXPORT and device not in (None, "cpu"):
        raise TspruneError(f"{name}: an export in {about.graph_format} runs on the CPU, not on {device}")
    size = sum((folder / file).stat().st_size for file in about.files if (folder / file).is_file())
    files = about.files or None  # none are known yet while it is written
    opened = partial(graph_session, threads=threads, device=device, files=files)
    graph = opened(folder / about.graph, bf16=about.precision == "bf16")
    if about.sampling is None:
        return Exported(name, about, graph, size)
    step = folder / about.step
    later = opened(step) if step.is_file() or about.step in about.files else None
    return ExportedSampler(name, about, graph, size, later)
