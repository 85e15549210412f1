"""Batches: every window once, only windows that go together, and always the same ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsprune.data import Configuration
from tsprune.errors import TspruneError
from tsprune.evaluation import Batch, shared_batches, unforecastable


def configuration(lengths: Sequence[int], horizon: int, first: float = 0.0) -> Configuration:
    """Window i is of lengths[i] steps, counted upwards from `first` + 1000 i, so that no two are alike."""
    contexts = [first + 1000 * i + np.arange(n, dtype=np.float32) for i, n in enumerate(lengths)]
    return Configuration(
        name=f"{first:g}",
        freq="D",
        horizon=horizon,
        season=1,
        contexts=[context.astype(np.float32) for context in contexts],
        targets=np.zeros((len(lengths), horizon), np.float32),
        series=np.arange(len(lengths)),
    )


def lengths_of(batch: Batch) -> list[int]:
    return [len(view) for view in batch.views]


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 600), max_size=12), st.sampled_from([3, 5])),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 500),
    st.integers(1, 9),
    st.sampled_from([1, 4, 5]),
)
def test_batches_partition_the_windows(
    suite: list[tuple[list[int], int]], context_length: int, batch_size: int, prefix_steps: int
) -> None:
    configurations = [configuration(lengths, horizon, 1e5 * i) for i, (lengths, horizon) in enumerate(suite)]
    sizes = {"context_length": context_length, "batch_size": batch_size, "prefix_steps": prefix_steps}
    found = shared_batches(configurations, **sizes)
    windows = [window for b in found for window in zip(b.configurations, b.rows, strict=True)]
    expected = [(n, row) for n, (lengths, _) in enumerate(suite) for row, m in enumerate(lengths) if m]
    assert sorted(windows) == expected
    for batch in found:
        assert 1 <= len(batch) <= batch_size
        longest, *_, shortest = [*lengths_of(batch), lengths_of(batch)[-1]]
        assert lengths_of(batch) == sorted(lengths_of(batch), reverse=True)
        assert max(shortest, 128) >= longest / 2
        for number, row, view in zip(batch.configurations, batch.rows, batch.views, strict=True):
            np.testing.assert_array_equal(view, configurations[number].contexts[row][-context_length:])
        own = [configurations[number].horizon for number in batch.configurations]
        assert batch.horizons.tolist() == own
        assert max(own) == batch.horizon
        assert prefix_steps == 5 or len(set(own)) == 1
    for before, after in itertools.pairwise(found):  # the next one starts only where it must
        if max(before.horizon, prefix_steps) == max(after.horizon, prefix_steps):
            too_long = max(lengths_of(after)[0], 128) < lengths_of(before)[0] / 2
            assert len(before) == batch_size or too_long


def test_batches_by_hand() -> None:
    """Two configurations of horizon 5 in turns with one of horizon 3; 300 is less than half of 700."""
    last = configuration([300, 700, 20], 5, 1e5)
    suite = [configuration([400, 700], 5), configuration([200], 3, 1e4), last]
    found = shared_batches(suite, context_length=1000, batch_size=64)
    assert [lengths_of(batch) for batch in found] == [[700, 700, 400], [300], [20], [200]]
    assert [batch.horizon for batch in found] == [5, 5, 5, 3]
    assert found[0].configurations.tolist() == [0, 2, 0]
    assert found[0].rows.tolist() == [1, 1, 0]
    assert {n: places.tolist() for n, places in found[0].members.items()} == {0: [0, 2], 2: [1]}
    # cut to 200 steps, all but the last are of one length; 20 steps cost as much as 128
    cut = shared_batches(suite, context_length=200, batch_size=64)
    assert [lengths_of(batch) for batch in cut] == [[200, 200, 200, 200, 20], [200]]
    # one pass gives five steps: the configuration of horizon 3 needs no batch of its own
    together = shared_batches(suite, context_length=1000, batch_size=64, prefix_steps=5)
    assert [lengths_of(batch) for batch in together] == [[700, 700, 400], [300, 200], [20]]
    assert together[1].horizons.tolist() == [5, 3]
    assert {h: places.tolist() for h, places in together[1].members_by_horizon.items()} == {3: [1], 5: [0]}
    wanted = together[1].wanted(np.zeros((2, 9, 5)))
    assert wanted[:, 0].tolist() == [[True] * 5, [True, True, True, False, False]]
    alone = shared_batches([last], context_length=1000, batch_size=64)
    assert [batch.rows.tolist() for batch in alone] == [[1], [0], [2]]
    assert {int(number) for batch in alone for number in batch.configurations} == {0}


def test_contexts_are_copies_and_a_selection_keeps_its_windows() -> None:
    (batch,) = shared_batches([configuration([9, 8, 7], 2)], context_length=9, batch_size=3)
    batch.contexts[0][:] = -1
    assert batch.views[0][0] == 0
    part = batch.select([2, 0])
    assert (part.rows.tolist(), part.horizon) == ([2, 0], 2)
    assert part.views[0] is batch.views[2]
    assert part.members.keys() == {0}


def test_a_fingerprint_is_of_the_values_in_their_order() -> None:
    def fingerprint(*lengths: int, horizon: int = 2) -> str:
        (batch,) = shared_batches([configuration(lengths, horizon)], context_length=99, batch_size=9)
        return batch.fingerprint

    (batch,) = shared_batches([configuration([9, 8], 2)], context_length=99, batch_size=9)
    turned = dataclasses.replace(batch, views=batch.views[::-1])
    others = [fingerprint(9, 7), fingerprint(9), fingerprint(9, 8, horizon=3), turned.fingerprint]
    assert fingerprint(9, 8) == batch.fingerprint
    assert len({batch.fingerprint, *others}) == 5


def test_history_that_is_only_known_before_the_context_is_listed() -> None:
    gone = configuration([4], 3)
    gone.contexts[0][2:] = np.nan
    assert unforecastable(gone, 2) == [(0, "no observed value in the last 2 steps of its history")]
    assert unforecastable(gone, 3) == []


def test_sizes_are_at_least_one() -> None:
    for context_length, batch_size in ((0, 1), (1, 0)):
        with pytest.raises(TspruneError, match="at least 1"):
            shared_batches([configuration([4], 3)], context_length=context_length, batch_size=batch_size)
