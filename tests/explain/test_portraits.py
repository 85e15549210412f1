"""Telling heads are the extremes, what they look at is the map itself, examples are real ablations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.planted import LAG, Planted
from tests.suites import LENGTH, configuration, tiny, waves
from tsprune.anatomy import Component
from tsprune.data import Suite
from tsprune.explain import portraits
from tsprune.explain.examples import RANKS, moved
from tsprune.explain.portraits import clearest_window, extreme_heads, glances_at
from tsprune.hooks.ablation import Ablation
from tsprune.sweeps import CLEAN
from tsprune.sweeps.engine import run

SUITE = Suite(
    "s",
    (
        configuration("a/D/short", [60, 90, 128, 75], 12),
        configuration("b/D/short", [128, 100], 6, season=40),
    ),
)


def test_extremes_are_chosen_and_named_once() -> None:
    heads = pd.DataFrame(
        {
            "address": list("abcd"),
            "sharpness": [0.1, 0.9, np.nan, 0.5],
            "parroting": [0.0, -0.3, -0.1, 0.1],
            "mase": [np.nan] * 4,
        }
    )
    assert extreme_heads(heads) == {
        "b": ("the sharpest", "the one without which parroting falls most"),
        "a": ("the most diffuse",),
    }
    assert extreme_heads(heads[["address"]]) == {}


def test_the_planted_head_looks_where_it_was_planted() -> None:
    model, suite = Planted(), waves(LAG)
    copy, average = (Component("stack", 0, "self", head) for head in (0, 1))
    found = glances_at(model, suite, [copy, average])
    glance = found[copy]
    assert glance.period == LAG
    assert len(glance.series) == LENGTH
    rows = np.arange(LAG, LENGTH + 1)
    np.testing.assert_allclose(glance.weights[rows, rows - LAG], 1, atol=1e-4)
    np.testing.assert_allclose(found[average].weights, 1 / (LENGTH + 1), atol=1e-4)
    np.testing.assert_array_equal(glance.queries, np.arange(-LENGTH + 1, 2))


def test_times_of_a_model_that_is_given_the_last_steps_one_by_one() -> None:
    """The encoder of a tiny Chronos-T5 sees all but the last 8 steps, which the decoder reads as tokens."""
    model = tiny("tiny-chronos-t5")
    inside, across = model.anatomy.select(["encoder.0.self.head.0", "decoder.0.cross.head.0"])
    found = glances_at(model, SUITE, [inside, across])
    assert [np.nanmax(found[head].keys) for head in (inside, across)] == [-8, -8]
    assert found[across].queries.tolist() == list(range(-8, 0))


def test_the_window_with_the_clearest_season_is_shown() -> None:
    """A period that is there four times comes before one that is not, however clear that is."""
    steps = np.arange(100)
    rng = np.random.default_rng(0)
    noisy, long, clear, clean = (
        (np.sin(2 * np.pi * steps / period) + noise * rng.standard_normal(100)).astype(np.float32)
        for period, noise in ((8, 1.0), (32, 0.0), (8, 0.1), (8, 0.0))
    )
    gap = clean.copy()
    gap[-3] = np.nan
    model = Planted()
    model.context_length = 80
    c = dataclasses.replace(SUITE.configurations[0], contexts=[noisy, long, clear, clean[:50]])
    name, series = clearest_window(model, Suite("s", (c,)))
    assert name == c.name
    np.testing.assert_array_equal(series, clear[-64:])  # no more than can be drawn
    c = dataclasses.replace(c, contexts=[gap, long, clean[:50], clean[:40]])
    np.testing.assert_array_equal(clearest_window(model, Suite("s", (c,)))[1], long[-64:])


@pytest.mark.parametrize("name", ["tiny-timesfm", "tiny-chronos-bolt", "tiny-toto"])
def test_portraits_show_plain_ablations(name: str) -> None:
    model = tiny(name)
    heads = pd.DataFrame({"address": [c.address for c in model.anatomy.components("head")]})
    heads["sharpness"] = np.arange(len(heads), dtype=float)
    found = portraits(model, SUITE, heads)
    assert [one.address for one in found] == [heads["address"].iloc[-1], heads["address"].iloc[0]]
    for one in found:
        assert len(one.examples) == len(RANKS)
        for example in one.examples:
            (c,) = (c for c in SUITE.configurations if c.name == example.configuration)
            row = next(i for i, target in enumerate(c.targets) if np.array_equal(target, example.target))
            clean = model.forecast([c.contexts[row]], c.horizon)
            with tsprune.ablate(model, one.address):
                ablated = model.forecast([c.contexts[row]], c.horizon)
            scale = np.abs(clean.quantiles).max()
            np.testing.assert_allclose(example.before, clean.quantiles[0], atol=1e-4 * scale)
            np.testing.assert_allclose(example.after, ablated.quantiles[0], atol=1e-4 * scale)


def test_windows_are_ordered_by_how_far_they_move() -> None:
    model = tiny("tiny-timesfm")
    cell = Ablation((model.anatomy.components("head")[4],))
    result = run(model, SUITE, [cell], keep={CLEAN, cell})
    ordered = moved(result, SUITE, cell)
    assert len(ordered) == len(SUITE)
    distances = [distance for distance, _, _ in ordered]
    assert distances == sorted(distances)
    for distance, number, place in ordered:
        c = SUITE.configurations[number]
        context = c.contexts[int(result.rows[c.name][place])].astype(float)
        error = np.abs(context[c.season :] - context[: -c.season]).mean()
        change = np.subtract(*(result.forecasts[x, c.name].median[place] for x in (cell, CLEAN)))
        assert distance == pytest.approx(np.abs(change).mean() / error, rel=1e-4)
