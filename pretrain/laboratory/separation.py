"""Whether accuracy and context parroting come back together: heads removed, then two kinds of training.

1. Heads are removed from a trained run: those whose ablation lowers parroting most ("carriers", by their
   effect on the sample of pocket), or as many at random.
2. The smaller model is left as it is, distilled from the original (`tsprune.recover`), or trained on data as
   the original was. A distilled model is asked to parrot as the original does, a trained one is not.
3. MASE, CRPS and the traits of the forecasts are measured on every suite, as for the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

import tsprune
from pretrain.laboratory.measures import COLUMNS, Row, scores, traits
from pretrain.laboratory.objectives import objective, opened
from pretrain.laboratory.plan import Run
from pretrain.laboratory.running import CHECKPOINT, Say
from pretrain.laboratory.windows import Windows
from pretrain.loop import Losses, Objective, Schedule, train
from tsprune.data.training import Windows as Batch
from tsprune.errors import TspruneError
from tsprune.models import Forecaster

SHARE = 0.25  # of the heads
DRAWS = 2  # random sets of as many heads
STEPS = 400
_DISTILLATION_RATE, _TRAINING_RATE = 1e-3, 1e-3


class Continued(Objective):
    """The objective of a run for a network that is there already, such as a pruned one."""

    def __init__(self, of: Objective, model: Forecaster) -> None:
        self.of, self.model = of, model
        self.window_length, self.series_length = of.window_length, of.series_length

    def build(self) -> nn.Module:
        return self.model.module

    def loss(self, model: nn.Module, windows: Batch, step: int, progress: float) -> Losses:
        return self.of.loss(model, windows, step, progress)

    def export(self, model: nn.Module, directory: Path) -> None:
        self.model.save(directory)


def separate(run: Run, out: Path, measured: pd.DataFrame, windows: Windows, say: Say) -> pd.DataFrame:
    """Rows `COLUMNS` of measure "separation"; units are "<heads>, <training>".

    out : folder of the trained run
    measured : rows of the run, with the effect of each head on parroting

    Raises TspruneError if the run is not trained, or its heads are not measured.
    """
    if not (out / CHECKPOINT).exists():
        raise TspruneError(f"{run.name} is not trained; train it first: python -m pretrain.laboratory run")
    original = opened(run.condition, out / CHECKPOINT)
    rows = _measured(original, "nothing removed", windows)
    for name, heads in chosen_heads(original, measured).items():
        pruned = tsprune.prune(original, heads)
        for training, model in _trainings(run, original, pruned, out / "separation" / name):
            say(f"{run.name} {name}, {training}")
            rows += _measured(model, f"{name}, {training}", windows)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def chosen_heads(model: Forecaster, measured: pd.DataFrame) -> dict[str, list[str]]:
    """Addresses to remove, by name: the carriers of parroting, and random sets of as many heads.

    Raises TspruneError without a row for each head.
    """
    effects = measured[(measured["measure"] == "head") & (measured["metric"] == "parroting")]
    every = [c.address for c in model.anatomy.components("head")]
    effect = effects.set_index("unit")["value"]
    if sorted(effect.index) != sorted(every):
        raise TspruneError(f"{model.name}: the effect of each head on parroting is not measured")
    count = max(1, round(SHARE * len(every)))
    rng = np.random.default_rng(0)
    drawn = {f"random {i}": sorted(rng.choice(every, count, replace=False)) for i in range(DRAWS)}
    return {"carriers": sorted(effect.nsmallest(count).index), **drawn}


def _trainings(
    run: Run, original: Forecaster, pruned: Forecaster, folder: Path
) -> Iterator[tuple[str, Forecaster]]:
    """(name, model) of the smaller model without and with training; the last one changes `pruned`."""
    yield "as pruned", pruned
    yield (
        "distilled",
        tsprune.recover(
            pruned,
            original,
            steps=STEPS,
            learning_rate=_DISTILLATION_RATE,
            precision="float32",
            seed=run.seed,
        ),
    )
    schedule = Schedule(STEPS, run.condition.batch_size, _TRAINING_RATE, warmup=40, decay=0.5)
    continued = Continued(objective(run.condition), pruned)
    # other data than the run's own: its seeds are small
    train(continued, schedule, folder, seed=1000 + run.seed, precision="float32", source=run.condition.source)
    pruned.module.eval()
    yield "trained", pruned


def _measured(model: Forecaster, unit: str, windows: Windows) -> list[Row]:
    """Means over the configurations of each suite."""
    rows: list[Row] = []
    for suite in windows.suites():
        found = [*scores(model, suite), *traits(model, suite)]
        rows += [
            (suite.name, "separation", unit, metric, value) for _, _, of, metric, value in found if not of
        ]
    return rows
