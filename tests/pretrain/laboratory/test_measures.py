"""Measurements: a planted redundancy is found, and the numbers are those of the public functions."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch

import tsprune
from pretrain.laboratory import measures
from pretrain.laboratory.windows import evenly, every_window
from tests.suites import configuration, small_suite, tiny
from tsprune.data import Suite
from tsprune.models import Forecaster

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, IDENTITY = 4, (1, 2)


def suite() -> Suite:
    return Suite(
        "few",
        (
            configuration("first/D/short", [120, 100, 130, 90], horizon=8),
            configuration("second/D/short", [150, 110, 140, 160], horizon=12, season=7),
        ),
    )


@functools.cache
def with_identity() -> tuple[Forecaster, Forecaster]:
    """What four layers of the bundled TimesFM make, and a copy in which two of them do nothing."""
    model = tsprune.prune(tsprune.load("bundled:timesfm", device="cpu"), [f"stack.{i}" for i in range(2, 6)])
    planted = copy.deepcopy(model)
    with torch.no_grad():
        for place in IDENTITY:
            block = planted.module.get_submodule(planted.anatomy.stacks[0].blocks[place].module)
            for norm in (block.post_attn_ln, block.post_ff_ln):
                norm.scale.zero_()  # type: ignore[union-attr, operator]
    return model, planted


def values(rows: list[measures.Row], measure: str, metric: str = "MASE") -> dict[str, float]:
    return {row[2]: row[4] for row in rows if row[1] == measure and row[3] == metric}


def test_layers_that_do_nothing_show_in_both_indices() -> None:
    found = []
    for model in with_identity():
        alone = measures.components(model, suite(), kinds=("layer",))
        curve = measures.greedy(model, suite(), suite())
        found.append((alone, curve, values(measures.redundancy(alone, curve), "redundancy")))
    (_, _, before), (alone, curve, after) = found
    costs = list(values(alone, "layer").values())
    assert [place for place, cost in enumerate(costs) if cost == 0] == list(IDENTITY)
    assert after["share"] == np.mean([cost < 0.05 for cost in costs]) >= len(IDENTITY) / LAYERS
    assert after["share"] > before["share"]
    changes = [values(curve, "greedy")[str(count)] for count in range(1, LAYERS + 1)]
    assert after["area"] == pytest.approx(np.log1p(changes).mean())
    turns = values(curve, "greedy", "turn")
    assert sorted(turns.values()) == [1, 2, 3, 4]


def test_changes_are_those_of_a_sweep() -> None:
    model, windows = tiny("tiny-timesfm"), small_suite()
    rows = measures.components(model, windows, kinds=("mlp",))
    frame = tsprune.sweep(model, windows, kind="mlp")
    assert list(values(rows, "mlp").values()) == frame["mase_change"].tolist()
    assert list(values(rows, "mlp", "CRPS").values()) == frame["crps_change"].tolist()


def test_heads_have_their_parroting_sharpness_and_rank() -> None:
    model, windows = tiny("tiny-timesfm"), small_suite()
    rows = measures.heads(model, windows)
    ranks = tsprune.rank(model, by="stable_rank").set_index("address")["score"]
    assert values(rows, "head", "stable_rank") == ranks.to_dict()
    # by hand, for one head
    address = ranks.index[3]
    expected = []
    for ablated in ([], [address]):
        with tsprune.ablate(model, ablated):
            frame = tsprune.explain.forecast_traits(model, evenly(windows, 99))
        expected.append(frame["parroting"].mean())
    assert values(rows, "head", "parroting")[address] == pytest.approx(expected[1] - expected[0], abs=1e-6)


def test_random_sets_take_as_many_heads_as_ranked_ones() -> None:
    model = tsprune.load("bundled:timesfm", device="cpu")
    chosen = {**measures._kinds(model), **measures._ranked(model, suite())}
    heads = {n: sum(c.kind == "head" for c in a.components) for n, a in chosen.items()}
    mlps = {n: sum(c.kind == "mlp" for c in a.components) for n, a in chosen.items()}
    for name in chosen:
        if name.startswith("heads 30%"):
            assert (heads[name], mlps[name]) == (round(0.3 * 32), 0)
        if name.startswith("heads 28%"):
            assert (heads[name], mlps[name]) == (round(0.28 * 64), 2)
    assert mlps["every mlp"] == 8
    assert mlps["middle mlp"] == 4
    assert len({a for n, a in chosen.items() if n.startswith("heads 30%, random")}) > 5


def test_windows_are_fixed_and_seen_by_no_training() -> None:
    one, other = every_window(), every_window()
    assert [s.fingerprint for s in one.suites()] == [s.fingerprint for s in other.suites()]
    names = [s.name for s in one.suites()]
    assert {"pocket", "periodic", "aperiodic"} <= set(names)
    assert set(names) | {name for name, _ in one.skipped} >= {"chaos", "gift-eval"}
    assert max(len(c) for c in one.sample.configurations) <= 12
    assert len(one.sample) < len(one.whole)
