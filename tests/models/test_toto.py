"""Toto: what its sampling shares between the paths of a window, and what it draws."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, MixtureSameFamily, StudentT

import tsprune
from tests.suites import tiny
from tests.tiny import double_precision, full_length, output_patch
from tsprune.models import SamplingForecaster
from tsprune.models.draws import Noise
from tsprune.models.toto_sampling import PatchDraws, mixture_of
from tsprune.precision import autocast
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
    sites = [site for block in model.anatomy.stacks[0].blocks for site in block.attention]
    assert copies(model, output_patch(model) + 1) == sum(site.role == "time" for site in sites)


def test_a_forecast_of_one_patch_keeps_no_state(model: SamplingForecaster) -> None:
    assert copies(model, output_patch(model)) == 0


def copies(model: SamplingForecaster, horizon: int) -> int:
    """States that are kept of a clean pass."""
    replay = Replay(model)
    with replay.record("windows"):
        model.forecast(full_length(model, 2), horizon)
    calls = [call for calls in replay._records["windows"].calls.values() for call in calls]
    return len({id(state) for call in calls if call.record is not None for state in call.record.states})


def test_chunks_of_any_size_go_on_alike_after_the_first_patch(
    model: SamplingForecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.samples = 8
    contexts, horizon = full_length(model, 5), 2 * output_patch(model) + 1
    with double_precision(model):  # else a path may jump where a rounding error meets the edge of a draw
        together = model.forecast(contexts, horizon).quantiles
        monkeypatch.setattr("tsprune.models.toto.STEPWISE_ROWS", 16)
        apart = model.forecast(contexts, horizon).quantiles
    np.testing.assert_allclose(apart, together, rtol=0, atol=1e-6 * np.abs(together).max())


def test_the_first_patch_is_the_same_whether_or_not_another_follows(model: SamplingForecaster) -> None:
    model.samples = 8
    contexts, patch = full_length(model, 3), output_patch(model)
    alone = model.forecast(contexts, patch).samples
    followed = model.forecast(contexts, patch + 1).samples
    assert alone is not None
    assert followed is not None
    np.testing.assert_allclose(alone, followed[..., :patch], rtol=1e-4, atol=1e-4)


def test_fewer_steps_are_the_first_ones_of_a_patch(model: SamplingForecaster) -> None:
    model.samples = 8
    contexts, patch = full_length(model, 3), output_patch(model)
    whole, part = model.forecast(contexts, patch).samples, model.forecast(contexts, patch - 3).samples
    assert whole is not None
    assert part is not None
    np.testing.assert_allclose(part, whole[..., : patch - 3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("multiple", "second"), [(1, 3), (2, 4), (16, 8)])
def test_only_what_is_wanted_becomes_a_distribution(
    model: SamplingForecaster, monkeypatch: pytest.MonkeyPatch, multiple: int, second: int
) -> None:
    monkeypatch.setattr("tsprune.models.toto_sampling.STEPS_TOGETHER", multiple)
    unembed, patch = model.module.get_submodule("unembed"), output_patch(model)
    width = model.anatomy.d_model
    seen: list[tuple[int, int]] = []  # positions, steps

    def see(_module: object, _args: object, output: torch.Tensor) -> None:
        seen.append((output.shape[-2], output.shape[-1] // width))

    handle = unembed.register_forward_hook(see)
    try:
        model.forecast(full_length(model, 2), patch + 3)
        model.teacher_forced(full_length(model, 2))
    finally:
        handle.remove()
    assert seen == [(1, patch), (1, second), (1, patch)]
    stream = torch.zeros(1, 5, width)
    assert unembed(stream).shape == (1, 5, patch * width)  # upstream's own use of the module is as it was


def test_a_module_in_training_mode_forecasts_in_evaluation_mode(model: SamplingForecaster) -> None:
    """As upstream's forecaster has it."""
    model.module.train()
    model.forecast(full_length(model, 1), 1)
    assert not any(part.training for part in model.module.modules())


def test_draws_follow_the_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    windows, patch, components, paths = 2, 3, 4, 8000
    weights = torch.rand(windows, 1, patch, components, generator=generator)
    freedom, location, scale = torch.rand(3, windows, 1, patch, components, generator=generator)
    parts = StudentT(2.5 + 4 * freedom, 10 * location, 0.5 + scale)
    mixture = MixtureSameFamily(Categorical(weights), parts)
    noise = Noise([np.full(3, n, dtype=np.float32) for n in range(windows)], 0)
    drawing = PatchDraws(*mixture_of(mixture, patch), noise, paths, patch)
    torch.testing.assert_close(drawing.mean.unflatten(0, (paths, -1))[5], mixture.mean)
    drawn = drawing.sample().unflatten(0, (paths, -1))
    for window, step in np.ndindex(windows, patch):

        def cumulative(x: np.ndarray, at: tuple[int, int, int] = (window, 0, step)) -> np.ndarray:
            single = zip(*(y[at].double().numpy() for y in (parts.df, parts.loc, parts.scale)), strict=True)
            shares = mixture.mixture_distribution.probs[at].double().numpy()
            return sum(w * stats.t(*one).cdf(x) for w, one in zip(shares, single, strict=True))

        assert stats.kstest(drawn[:, window, 0, step].double().numpy(), cumulative).pvalue > 0.01


def test_paths_of_their_own_and_paths_of_a_window_draw_alike() -> None:
    """If every path of a window has the same distribution, it does not matter which of the two is said."""
    windows, patch, paths = 3, 4, 5
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(windows, 1, patch - 1, 2, generator=generator)
    parameters = 2.5 + torch.rand(windows, 1, patch - 1, 2, 3, generator=generator)
    contexts = [np.full(3, n, dtype=np.float32) for n in range(windows)]

    def drawn(times: int) -> torch.Tensor:
        own = weights.repeat(times, 1, 1, 1), parameters.repeat(times, 1, 1, 1, 1)
        return PatchDraws(*own, Noise(contexts, 0), paths, patch).sample()

    torch.testing.assert_close(drawn(paths), drawn(1), rtol=1e-6, atol=1e-6)
    assert not drawn(1)[..., -1].any()
    assert drawn(1)[..., :-1].all()


def test_weights_of_the_mixture_add_up_where_products_are_rounded() -> None:
    """As in a recovery in bfloat16: torch refuses weights whose sum differs from 1 by more than 1e-6."""
    model = tsprune.load("bundled:toto", device="cpu")
    contexts = [np.arange(100.0) % 7, np.sin(np.arange(100.0))]
    exact = model.teacher_forced(contexts)
    with autocast("bfloat16"):
        found = model.teacher_forced(contexts)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[..., 0].sum(-1), torch.ones(found.shape[:-2]))
    assert 0 < (found - exact).abs().max() < 0.1 * exact.abs().max()
