"""Preparation: computed once a configuration, kept no longer than it, and not pickled with it."""

from __future__ import annotations

import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.suites import small_suite
from tsprune.evaluation import MASE, prepare, seasonal_errors
from tsprune.evaluation.baseline import _prepared


def test_a_configuration_is_prepared_once_by_whichever_thread() -> None:
    (configuration, _) = small_suite().configurations
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(prepare, [configuration] * 16))
    assert len({id(one) for one in found}) == 1
    np.testing.assert_array_equal(
        found[0].season_errors, seasonal_errors(configuration.contexts, configuration.season)
    )


def test_equal_content_is_not_the_same_configuration() -> None:
    first, other = (small_suite().configurations[0] for _ in range(2))
    assert first != other
    assert prepare(first) is not prepare(other)
    assert MASE.of(prepare(first).baseline) == MASE.of(prepare(other).baseline)


def test_preparation_ends_with_its_configuration_and_is_not_pickled_with_it() -> None:
    gc.collect()
    before = len(_prepared)
    (configuration, _) = small_suite().configurations
    plain = len(pickle.dumps(configuration))
    prepare(configuration)
    assert len(pickle.dumps(configuration)) == plain
    assert len(_prepared) == before + 1
    del configuration
    gc.collect()
    assert len(_prepared) == before
