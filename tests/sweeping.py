"""Ablations, a model that counts its calls, and exact comparison, for tests of sweeps."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tests.tiny import spread
from tsprune.evaluation import WindowStatistics
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecast, Forecaster
from tsprune.sweeps import SweepResult, single_ablations


def some_ablations(model: Forecaster) -> list[Ablation]:
    """Ablations of every kind and mode, low and high in the model."""
    every = [c for kind in ("head", "mlp", "layer") for c in spread(model.anatomy.components(kind), 3)]
    last = model.anatomy.components("head")[-1]
    return [
        *(Ablation((component,)) for component in every),
        Ablation((every[0], last)),
        Ablation((last,), "mean"),
        Ablation((every[0],), "resample", seed=3),
    ]


def heads_and_mean_mlps(model: Forecaster) -> list[Ablation]:
    """Every head zeroed, every MLP at its mean: the workers need a reference of their own."""
    heads, mlps = single_ablations(model, "head"), single_ablations(model, "mlp", mode="mean")
    return [*heads.values(), *mlps.values()]


def assert_equal(a: SweepResult, b: SweepResult, *, exactly: bool = True) -> None:
    assert a.rows.keys() == b.rows.keys()
    assert a.skipped == b.skipped
    for name in a.rows:
        np.testing.assert_array_equal(a.rows[name], b.rows[name])
    assert a.scores.keys() == b.scores.keys()
    for ablation, scores in a.scores.items():
        for name, one in scores.items():
            other = b.scores[ablation][name]
            pairs = [(one.spearman, other.spearman)]
            for field in dataclasses.fields(WindowStatistics):
                pairs.append((getattr(one.statistics, field.name), getattr(other.statistics, field.name)))
            for x, y in pairs:
                if exactly:
                    np.testing.assert_array_equal(x, y)
                else:
                    np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-3)


class Counting(Forecaster):
    """Another model, with its calls counted (and, from a history's length on, its answers lost)."""

    def __init__(self, model: Forecaster, lost: float = math.inf) -> None:
        self.name, self.family, self.upstream = model.name, model.family, model.upstream
        self.module, self.anatomy, self.context_length = model.module, model.anatomy, model.context_length
        self.inner, self.lost = model, lost
        self.readout_horizon = model.readout_horizon
        self.calls = 0

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        self.calls += 1
        forecast = self.inner.forecast(contexts, horizon)
        lost = np.array([len(np.asarray(context)) >= self.lost for context in contexts])
        quantiles = np.where(lost[:, None, None], np.float32(np.nan), forecast.quantiles)
        return dataclasses.replace(forecast, quantiles=quantiles)

    def __deepcopy__(self, memo: dict[int, Any]) -> Forecaster:
        """A copy of the model itself: components may be cut out of it."""
        return copy.deepcopy(self.inner, memo)

    def teacher_forced(self, contexts: Sequence[ArrayLike]) -> Any:
        return self.inner.teacher_forced(contexts)

    def readout(self, contexts: Sequence[ArrayLike], horizon: int) -> Any:
        return self.inner.readout(contexts, horizon)

    def save(self, directory: Any) -> None:
        self.inner.save(directory)
