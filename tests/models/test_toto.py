"""Toto: what its sampling shares between the paths of a window."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.suites import tiny
from tests.tiny import full_length, output_patch
from tsprune.models import SamplingForecaster
from tsprune.replay import Replay


@pytest.fixture
def model() -> SamplingForecaster:
    shared = copy.copy(tiny("tiny-toto"))  # with settings of its own
    assert isinstance(shared, SamplingForecaster)
    return shared


def recorded(model: SamplingForecaster, samples: int, horizon: int) -> int:
    """Bytes that are kept of a clean pass."""
    model.samples = samples
    replay = Replay(model)
    with replay.record("windows"):
        model.forecast(full_length(model, 4), horizon)
    return replay.nbytes


def test_what_is_recorded_of_a_history_does_not_grow_with_the_samples(model: SamplingForecaster) -> None:
    horizon = output_patch(model)
    assert recorded(model, 32, horizon) == recorded(model, 2, horizon)


def test_the_state_is_copied_once_for_each_layer_that_changes_it(model: SamplingForecaster) -> None:
    replay = Replay(model)
    with replay.record("windows"):
        model.forecast(full_length(model, 2), output_patch(model))
    calls = [call for calls in replay._records["windows"].calls.values() for call in calls]
    copies = {id(state) for call in calls if call.record is not None for state in call.record.states}
    sites = [site for block in model.anatomy.stacks[0].blocks for site in block.attention]
    assert len(copies) == sum(site.kind == "time" for site in sites)


def test_chunks_of_any_size_go_on_alike_after_the_first_patch(
    model: SamplingForecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.samples = 8
    contexts, horizon = full_length(model, 5), 2 * output_patch(model) + 1
    together = model.forecast(contexts, horizon).quantiles
    monkeypatch.setattr("tsprune.models.toto.STEPWISE_ROWS", 16)
    apart = model.forecast(contexts, horizon).quantiles
    np.testing.assert_allclose(apart, together, atol=1e-4 * np.abs(together).max())
