"""Comparing a model with a smaller one: what `evaluate` says of each, and no change from itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.suites import small_suite, tiny
from tsprune import evaluate, load, prune
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import geometric_mean_ratios
from tsprune.pruning import compare, latency_evidence


def test_a_model_does_not_differ_from_itself() -> None:
    model = tiny("tiny-timesfm")
    found = compare(model, model, small_suite())
    assert found.before == found.after
    for change in found.change.values():
        assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)
        assert not change.differs


def test_scores_are_those_of_evaluate() -> None:
    model = tiny("tiny-chronos-bolt")
    smaller = prune(model, ["encoder.1", "decoder.0.cross.head.1"])
    suite = small_suite()
    found = compare(model, smaller, suite)
    assert found.windows == len(suite) - 1  # one window has no history
    for forecaster, means in ((model, found.before), (smaller, found.after)):
        assert means == pytest.approx(geometric_mean_ratios(evaluate(forecaster, suite)))
    for metric in ("MASE", "CRPS"):
        ratio = found.after[metric] / found.before[metric]
        assert found.change[metric].value == pytest.approx(ratio - 1)
        assert found.change[metric].low <= found.change[metric].value <= found.change[metric].high
    rows = found.evidence()
    assert [tuple(row[:2]) for row in rows.values()] == [
        (found.before[metric], found.after[metric]) for metric in ("MASE", "CRPS")
    ]


def test_prune_measures_the_card(tmp_path: Path) -> None:
    """Of weights as they are saved, in the given type; a second removal begins a card of its own."""
    model = tiny("tiny-timesfm")
    smaller = prune(model, "stack.1", measure=small_suite(), dtype="bfloat16")
    scores = compare(model, smaller, small_suite()).evidence()
    assert {name: smaller.evidence[name] for name in scores} == scores
    assert any(name.startswith("ms a forecast") for name in smaller.evidence)
    smaller.save(tmp_path / "small")
    card = (tmp_path / "small" / "README.md").read_text()
    assert all(f"| {name.split(',')[0]}" in card for name in smaller.evidence)
    saved = load(str(tmp_path / "small"), device="cpu")
    assert compare(model, saved, small_suite()).after == compare(model, smaller, small_suite()).after
    assert not prune(smaller, "stack.0.mlp").evidence


def test_nothing_to_compare() -> None:
    model = tiny("tiny-timesfm")
    with pytest.raises(TspruneError, match="no window of empty"):
        compare(model, model, Suite("empty", ()))


def test_milliseconds_of_both() -> None:
    model = tiny("tiny-timesfm")
    rows = latency_evidence(model, prune(model, ["stack.1"]), batches=(1, 2), context=32, horizon=4, rounds=3)
    assert len(rows) == 2
    for name, (before, after, change) in rows.items():  # type: ignore[misc]
        assert "threads" in name
        assert np.isfinite([before, after]).all()
        assert min(before, after) > 0
        assert change.startswith("x ")
