"""Heads that carry parroting are removed, and what is left is trained in two ways."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pretrain.laboratory import separation
from pretrain.laboratory.measures import COLUMNS
from pretrain.laboratory.objectives import opened
from pretrain.laboratory.plan import Condition, Run
from pretrain.laboratory.running import CHECKPOINT, train_run
from pretrain.laboratory.windows import Windows
from tests.suites import configuration
from tsprune.data import Suite, training
from tsprune.data.training import Source
from tsprune.errors import TspruneError

pytestmark = pytest.mark.usefixtures("one_thread")
RUN = Run(
    Condition(
        "tiny", "null", "", layers=2, width=32, context=128, steps=2, batch_size=3, source=Source(shards=1)
    ),
    0,
)
SUITE = Suite("few", (configuration("first/D/short", [80, 70], horizon=6),))


def effects(model: separation.Forecaster) -> pd.DataFrame:
    """The third head carries what there is of parroting."""
    heads = model.anatomy.components("head")
    rows = [("few", "head", c.address, "parroting", -float(n == 2)) for n, c in enumerate(heads)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_carriers_go_and_both_trainings_change_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 6)
    monkeypatch.setattr(training, "WINDOWS_PER_SERIES", 2)
    monkeypatch.setattr(separation, "STEPS", 2)
    monkeypatch.setattr(separation, "DRAWS", 1)
    with pytest.raises(TspruneError, match="tiny-s0 is not trained"):
        separation.separate(RUN, tmp_path, pd.DataFrame(), Windows(SUITE, SUITE, (), (), ()), print)
    train_run(RUN, tmp_path, lambda line: None)
    model = opened(RUN.condition, tmp_path / CHECKPOINT)
    with pytest.raises(TspruneError, match="effect of each head"):
        separation.chosen_heads(model, effects(model).iloc[1:])
    carriers = separation.chosen_heads(model, effects(model))["carriers"]
    assert carriers == [model.anatomy.components("head")[2].address]
    said: list[str] = []
    rows = separation.separate(RUN, tmp_path, effects(model), Windows(SUITE, SUITE, (), (), ()), said.append)
    units = [
        f"{heads}, {way}"
        for heads in ("carriers", "random 0")
        for way in ("as pruned", "distilled", "trained")
    ]
    assert list(dict.fromkeys(rows["unit"])) == ["nothing removed", *units]
    assert [line.removeprefix("tiny-s0 ") for line in said] == units
    scores = rows[rows["metric"] == "CRPS"].set_index("unit")["value"]
    for heads in ("carriers", "random 0"):  # two steps of distillation may find nothing better
        assert scores[f"{heads}, trained"] != scores[f"{heads}, as pruned"] != scores["nothing removed"]
