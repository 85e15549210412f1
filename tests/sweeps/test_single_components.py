"""`sweep`: one row a unit, each equal to evaluating the model under that ablation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suites import small_suite, tiny
from tests.tiny import pristine
from tsprune import ablate, evaluate, reference, sweep
from tsprune.anatomy import KINDS
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import geometric_mean_ratios
from tsprune.hooks.capture import default_reference

MODELS = ["tiny-chronos-bolt", "tiny-timesfm"]
COLUMNS = ["address", "kind", "stack", "layer", "attention", "head"]
COLUMNS += ["mase_change", "crps_change", "spearman_distance"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_row_a_component_in_order(name: str, kind: str) -> None:
    model = tiny(name)
    with pristine(model):
        table = sweep(model, small_suite(), kind=kind)
    frame = table.frame
    assert list(frame.columns) == COLUMNS
    assert frame["address"].tolist() == [c.address for c in model.anatomy.components(kind)]
    assert (frame["kind"] == kind).all()
    assert np.isfinite(frame[["mase_change", "crps_change", "spearman_distance"]]).all(axis=None)
    assert frame["spearman_distance"].between(0, 2).all()
    assert ("second/D/short, window 1", "no history before the window") in table.skipped
    assert ("third/D/short", "no series is long enough") in table.skipped


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_a_row_is_what_evaluate_finds_under_the_ablation(name: str, mode: str) -> None:
    model, suite = tiny(name), small_suite()
    patterns = ["*.1.mlp", "*.0.*.head.1"]
    units = {"mlp": patterns[0], "head": patterns[1]}
    before = geometric_mean_ratios(evaluate(model, suite))
    recorded = default_reference(model, model.anatomy.select(patterns))
    for kind, pattern in units.items():
        frame = sweep(model, suite, kind=kind, components=pattern, mode=mode, reference=recorded).frame
        assert len(frame) == len(model.anatomy.select(pattern))
        for row in frame.itertuples():
            with ablate(model, row.address, mode=mode, reference=recorded):
                after = geometric_mean_ratios(evaluate(model, suite))
            assert row.mase_change == pytest.approx(after["MASE"] / before["MASE"] - 1, abs=1e-12)
            assert row.crps_change == pytest.approx(after["CRPS"] / before["CRPS"] - 1, abs=1e-12)
            # a decoder that starts from one token has the same first self-attention in every window
            if not (mode != "zero" and row.address.startswith("decoder.0.self")):
                assert abs(row.mase_change) > 1e-9


def test_a_reference_of_ones_own_is_used() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    flat = reference(model, [np.zeros(128, np.float32)] * 2)
    own = sweep(model, suite, kind="mlp", mode="mean", reference=flat)
    default = sweep(model, suite, kind="mlp", mode="mean")
    assert not np.allclose(own["mase_change"], default["mase_change"])


def test_mistakes_are_named() -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    with pytest.raises(TspruneError, match="unknown kind 'neuron'; one of: head, mlp, attention, layer"):
        sweep(model, suite, kind="neuron")
    with pytest.raises(TspruneError, match="matches no component"):
        sweep(model, suite, kind="head", components="stack.9.*")
    with pytest.raises(TspruneError, match="but no head"):
        sweep(model, suite, kind="head", components="stack.*.mlp")
    with pytest.raises(TspruneError, match="unknown ablation mode 'noise'; one of: zero, mean, resample"):
        sweep(model, suite, kind="head", mode="noise")
    with pytest.raises(TspruneError, match="no windows"):
        sweep(model, Suite("empty", ()))
