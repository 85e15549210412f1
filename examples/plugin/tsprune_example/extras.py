"""A score, a metric and a data source, each one object."""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from tsprune.anatomy import Component
from tsprune.data import Configuration, DataSource, Suite
from tsprune.evaluation import Metric
from tsprune.scores import Score, ScoringTask
from tsprune.scores.score import Values


def _column_norm(task: ScoringTask) -> dict[str, Values]:
    norms: dict[Component, float] = {}
    for head in task.components:
        site = task.model.anatomy.site(head)
        weight = task.model.module.get_submodule(site.output).get_parameter("weight")
        norms[head] = float(weight[:, site.columns(head.head or 0)].detach().norm())
    return {"column_norm": norms}


ABOUT = "Frobenius norm of a head's columns of the output projection"
COLUMN_NORM = Score("column_norm", ("head",), "low-to-high", "weights", ABOUT, _column_norm)

# weighted absolute percentage error: sum of |y - median| over sum of |y|
WAPE = Metric("WAPE", attrgetter("absolute_error_sum"), attrgetter("absolute_target_sum"))


def sawtooth() -> Suite:
    """Noisy sawtooth waves of two periods, four windows each."""
    rng, found = np.random.default_rng(0), []
    for period in (7, 12):
        waves = (np.arange(90) % period + rng.normal(0, 0.3, (4, 90)) + 1).astype(np.float32)
        name, contexts, targets = f"sawtooth_{period}/D/short", list(waves[:, :80]), waves[:, 80:]
        found.append(Configuration(name, "D", 10, period, contexts, targets, series=np.arange(4)))
    return Suite("sawtooth", tuple(found))


SAWTOOTH = DataSource("sawtooth", sawtooth, "noisy sawtooth waves of two periods")
