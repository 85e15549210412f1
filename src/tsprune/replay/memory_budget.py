"""Bytes of a record per window."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from tsprune.arguments import UNLIMITED
from tsprune.models.forecaster import Forecaster
from tsprune.replay.replay import Replay


def record_bytes(model: Forecaster, contexts: Sequence[ArrayLike], horizon: int) -> int:
    """Bytes per window of the complete record of a clean pass, measured on `contexts`.

    Pass two to four of the longest windows. Tensors that do not grow with the batch (masks, position
    biases) are counted per window, so the estimate is slightly high.
    """
    replay = Replay(model, UNLIMITED)
    with replay.record("sample"):
        model.forecast(contexts, horizon)
    return -(-replay.nbytes // len(contexts))
