"""Timing in turns, the interval of a median, and counts that can be made by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from scipy.stats import binom

from tests.suites import tiny
from tests.toy import Toy
from tsprune.cost.flops import flops
from tsprune.cost.latency import (
    LATENCY,
    compare_latency,
    in_turns,
    median_interval,
    peak_bytes,
)
from tsprune.errors import TspruneError
from tsprune.models import Forecast
from tsprune.pruning import prune


def test_median_interval_of_published_ranks() -> None:
    """Ranks of the 95 % interval as tables of order statistics give them, e.g. Conover (1999), A3."""
    for count, low, high in ((6, 1, 6), (10, 2, 9), (20, 6, 15), (30, 10, 21)):
        values = np.arange(1.0, count + 1)
        assert median_interval(values[::-1])[1:] == (low, high)


@pytest.mark.parametrize("count", [6, 7, 15, 16, 50, 101])
def test_median_interval_covers_and_is_no_wider_than_it_must_be(count: int) -> None:
    _, low, _ = median_interval(np.arange(1.0, count + 1))
    outside = 2 * binom.cdf(low - 1, count, 0.5)
    assert outside <= 0.05 < 2 * binom.cdf(low, count, 0.5)


def test_median_interval_of_few_values_is_all_of_them() -> None:
    assert median_interval([3.0, 1.0]) == (2.0, 1.0, 3.0)
    assert median_interval([5.0]) == (5.0, 5.0, 5.0)


def test_in_turns_swaps_the_order() -> None:
    called: list[str] = []
    first, second = in_turns(lambda: called.append("a"), lambda: called.append("b"), 3)
    assert "".join(called) == "abbaab"
    assert first.shape == second.shape == (3,)
    assert (first >= 0).all()


def test_flops_of_a_matrix_product() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert flops(lambda: a @ b) == 2 * 3 * 5 * 7


def test_peak_is_what_is_held_at_once() -> None:
    x = torch.ones(256)  # 1024 bytes

    def one_after_the_other() -> None:
        for _ in range(5):
            y = x + 1
            del y

    def together() -> list[torch.Tensor]:
        return [x + 1 for _ in range(5)]

    assert peak_bytes(one_after_the_other) == 1024
    assert peak_bytes(together) == 5 * 1024
    assert peak_bytes(lambda: x.view(16, 16).T) == 0  # a view holds nothing of its own


def test_compare_counts_what_was_removed() -> None:
    model = tiny("tiny-timesfm")
    pruned = prune(model, "stack.1")
    frame = compare_latency(model, pruned, batches=[1, 3], context=40, horizon=4, rounds=3)
    assert tuple(frame.columns) == LATENCY.names
    assert frame["batch"].tolist() == [1, 1, 3, 3]
    assert frame["parameters"].tolist() == [model.parameter_count, pruned.parameter_count] * 2
    assert (frame["ms_low"] <= frame["ms"]).all()
    assert (frame["ms"] <= frame["ms_high"]).all()
    assert (frame["gflops"].to_numpy()[1::2] < frame["gflops"].to_numpy()[::2]).all()
    np.testing.assert_allclose(frame["gflops"][2:].to_numpy(), 3 * frame["gflops"][:2].to_numpy())
    assert frame["time_ratio"].nunique() == 2
    assert (frame["peak_mb"] > 0).all()


def test_flops_of_a_removed_mlp_by_hand() -> None:
    model = Toy()
    frame = compare_latency(model, prune(model, "stack.0.mlp"), batches=[2], context=8, horizon=1, rounds=2)
    saved = 2 * (2 * 8) * (6 * 9 + 9 * 6)  # 2 series of 8 tokens through 6 -> 9 -> 6
    assert round((frame["gflops"][0] - frame["gflops"][1]) * 1e9) == saved


def test_too_few_rounds() -> None:
    with pytest.raises(TspruneError, match="at least 2 rounds"):
        compare_latency(Toy(), Toy(), rounds=1)


def test_the_first_forecast_of_a_model_that_is_not_counted_is_not_timed() -> None:
    class Slow:
        """Its first forecast takes a tenth of a second more, as where something is compiled."""

        name, context_length, parameter_count, horizon, weight_bytes = "slow", 64, 1, 64, 4
        forecasts = 0

        def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
            self.forecasts += 1
            time.sleep(0.1 if self.forecasts == 1 else 0.0)
            return Forecast(np.zeros((len(contexts), 1, horizon), np.float32), (0.5,))

    frame = compare_latency(tiny("tiny-timesfm"), Slow(), batches=(1,), context=32, horizon=2, rounds=3)
    assert frame["ms_high"].iloc[1] < 50
