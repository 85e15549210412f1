"""Models that sample: paths are paired, a window's own, and torch's random state stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.capabilities import CAPABILITIES
from tests.tiny import SAMPLES, double_precision, ragged
from tsprune.hooks.ablation import ablate
from tsprune.models import Forecaster, SamplingForecaster, load


@pytest.fixture
def sampling(model: Forecaster) -> SamplingForecaster:
    if not CAPABILITIES[model.family].samples:
        pytest.skip("does not sample")
    assert isinstance(model, SamplingForecaster)
    return model


def test_torchs_random_state_is_left_alone(model: Forecaster) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = model.forecast(ragged(model, 3), 5).quantiles
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    np.testing.assert_array_equal(model.forecast(ragged(model, 3), 5).quantiles, first)


def test_paths_are_given_with_the_quantiles(sampling: SamplingForecaster) -> None:
    forecast = sampling.forecast(ragged(sampling, 3), 5)
    assert forecast.samples is not None
    assert forecast.samples.shape == (3, SAMPLES, 5)
    assert forecast.samples.dtype == np.float32
    assert (np.diff(forecast.quantiles, axis=1) >= 0).all()
    for path in forecast.quantiles[0]:
        assert np.isin(path, forecast.samples[0]).all()  # quantiles are drawn values


def test_another_seed_draws_other_paths(sampling: SamplingForecaster) -> None:
    contexts = ragged(sampling, 2)
    first = sampling.forecast(contexts, 5).samples
    sampling.seed = 1
    try:
        assert not np.array_equal(sampling.forecast(contexts, 5).samples, first)
    finally:
        sampling.seed = 0
    np.testing.assert_array_equal(sampling.forecast(contexts, 5).samples, first)


def test_ablated_and_unablated_paths_are_paired(sampling: SamplingForecaster) -> None:
    """With the same draws an ablation moves paths less than other draws do."""
    contexts = ragged(sampling, 3)
    head = sampling.anatomy.components("head")[0]
    clean = sampling.forecast(contexts, 5).samples
    with ablate(sampling, head):
        paired = sampling.forecast(contexts, 5).samples
        sampling.seed = 1
        try:
            unpaired = sampling.forecast(contexts, 5).samples
        finally:
            sampling.seed = 0
    assert clean is not None
    assert paired is not None
    assert unpaired is not None
    scale = np.median(np.abs(clean - np.median(clean, axis=1, keepdims=True)))
    assert np.median(np.abs(paired - clean)) < 0.5 * np.median(np.abs(unpaired - clean))
    assert scale > 0


def test_batches_of_any_size_draw_the_same(
    sampling: SamplingForecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: in float32 a path may jump where a rounding error meets the edge of a draw."""
    contexts = ragged(sampling, 4)
    with double_precision(sampling):
        together = sampling.forecast(contexts, 5).quantiles
        monkeypatch.setattr(f"{type(sampling).__module__}._ROWS", 1)
        apart = sampling.forecast(contexts, 5).quantiles
    np.testing.assert_allclose(apart, together, rtol=0, atol=1e-6 * np.abs(together).max())


def test_samples_and_seed_can_be_chosen_at_loading(sampling: SamplingForecaster, directory: Path) -> None:
    chosen = load(str(directory), device="cpu", samples=3, seed=5)
    assert isinstance(chosen, SamplingForecaster)
    forecast = chosen.forecast(ragged(sampling, 2), 4)
    assert forecast.samples is not None
    assert forecast.samples.shape == (2, 3, 4)
    by_default = load(str(directory), device="cpu")
    assert isinstance(by_default, SamplingForecaster)
    assert by_default.samples in (SAMPLES, 20, 100, 256)
