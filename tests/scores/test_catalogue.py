"""The catalogue of scores, and a score that another installed package adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tsprune
from tests.suites import small_suite, tiny
from tsprune.scores import SCORES, agreement_table, score_table
from tsprune.studies import study

SOURCE = """
from tsprune.scores import Score, ScoringTask, Values

def measure(task: ScoringTask) -> dict[str, Values]:
    batch = task.options.batch_size
    return {"last_first": {c: float(-c.layer - (c.head or 0) / 100 - batch * 0) for c in task.components}}

LAST_FIRST = Score("last_first", ("head", "mlp"), "low-to-high", "windows", "the last layer first", measure)
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with the score `last_first`, as another package would install it."""
    (tmp_path / "foreign_scores.py").write_text(SOURCE)
    info = tmp_path / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tsprune.scores]\nlast_first = foreign_scores:LAST_FIRST\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    vars(SCORES).pop("_items", None)
    yield
    vars(SCORES).pop("_items", None)


def test_every_score_names_its_kinds_and_formula() -> None:
    for name, score in SCORES.items():
        assert name == score.name
        assert score.kinds
        assert len(score.about) > 20


@pytest.mark.usefixtures("added")
def test_a_foreign_score_works_like_a_built_in_one() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    assert list(SCORES)[-1] == "last_first"
    ranked = tsprune.rank(model, suite, by="last_first")
    np.testing.assert_array_equal(ranked["score"], -ranked["layer"] - ranked["head"] / 100)
    assert (ranked.groupby("layer")["rank"].last() == 1).all()  # the lowest is the most redundant
    table = score_table(model, suite, kinds=("head", "mlp"))
    assert table["last_first"].notna().all()
    found = agreement_table(table, table)
    assert set(found.loc[found["score"] == "last_first", "kind"]) == {"head", "mlp"}
    at = tsprune.heads_at(model, suite, by="last_first")
    assert at["heads"].gt(0).all()


@pytest.mark.usefixtures("added")
def test_a_study_compares_a_foreign_score_with_exact_effects() -> None:
    found = study([tiny("tiny-timesfm")], small_suite(), explain=False).models[0].agreement
    assert {"last_first", "stable_rank"} <= set(found["score"])
