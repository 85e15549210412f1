"""A model as one graph forecasts as the model does, and a longer horizon than a pass as well."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.interpolate import interp1d

from tests.capabilities import CAPABILITIES
from tests.threads import single_thread
from tests.tiny import TINY
from tsprune.errors import TspruneError
from tsprune.models import FAMILIES, Forecaster, load
from tsprune.models.contexts import padded
from tsprune.models.graph_ops import (
    bounded,
    causal_mask,
    causal_moments,
    empirical_quantiles,
    filled_forward,
    running_moments,
    without_gaps,
)
from tsprune.pruning import prune

EXACTNESS = 1e-5  # of the largest quantile: the same sums in float32, in another order
# graphs of models that draw paths are steps of these: see tests/deployment/test_exported_sampler.py
_WHOLE = [f.name for f in FAMILIES.values() if f.graph and not CAPABILITIES[f.name].samples]
_ONE_PASS = ("chronos2", "t0", "toto2")
_GRAPHS = [name for name in TINY if any(f"{name}-".startswith(f"tiny-{family}-") for family in _WHOLE)]


def awkward(length: int) -> list[NDArray[np.float32]]:
    """Series: plain; gaps inside, in front, at the end; positive; constant; flat at first; counts."""
    rng = np.random.default_rng(0)
    series = [(rng.normal(size=length).cumsum() + 5).astype(np.float32) for _ in range(8)]
    series[1][length // 3 : length // 2] = np.nan
    series[2][: length // 4] = np.nan
    series[3][-3:] = np.nan
    series[4] = np.abs(series[4])
    series[5][:] = 7
    series[6][: length // 2] = 3
    series[7] = np.round(np.abs(series[7] - series[7][-1]))
    return series


@pytest.fixture(scope="module", params=_GRAPHS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    path: Path = tmp_path_factory.mktemp(request.param) / "model"
    TINY[request.param](path)
    return load(path, device="cpu")


def require_same(model: Forecaster, horizon: int, of: int | None = None) -> None:
    graph = resolve_name(FAMILIES[model.family].graph)(model, of or horizon)
    span, future_span = model.anatomy.stacks[0].time.span, getattr(graph, "future_span", 0)
    future = [torch.zeros(-(-horizon // future_span))] if future_span else []
    for length in (3 * span - 1, model.context_length):
        series = awkward(length) if length > 8 else awkward(40)[:1]
        expected = model.forecast(series, horizon).quantiles
        kept = [x[-model.context_length :] for x in series]
        given = padded(kept, span)
        if getattr(graph, "marks_padding", False):
            for row, values in zip(given, kept, strict=True):
                row[: len(row) - len(values)] = np.inf
        with torch.no_grad():
            found = graph(torch.from_numpy(given), *future).numpy()[..., :horizon]
        assert found.shape == expected.shape
        limit = EXACTNESS * np.abs(expected).max(axis=(1, 2), keepdims=True)
        if horizon > model.readout_horizon and len(series) > 1:
            limit[5] = np.inf  # of a constant series, the next pass normalises what rounding left
        assert (np.abs(found - expected) <= limit).all()


def test_a_graph_forecasts_as_its_model(model: Forecaster) -> None:
    before = model.forecast(awkward(40), 3).quantiles
    with single_thread():
        require_same(model, model.readout_horizon)
        require_same(model, model.readout_horizon // 2 + 1)
    np.testing.assert_array_equal(model.forecast(awkward(40), 3).quantiles, before)


def test_a_graph_goes_on_beyond_a_pass_or_says_that_it_does_not(model: Forecaster) -> None:
    if model.family in _ONE_PASS:
        steps = model.readout_horizon
        with pytest.raises(TspruneError, match=f"is exported for one pass, up to {steps} steps, not"):
            require_same(model, steps + 9)
        return
    require_same(model, model.readout_horizon + 9)


def test_a_shorter_forecast_from_a_longer_graph(model: Forecaster) -> None:
    """TimesFM has another head up to 128 steps; Chronos-2 sees how many steps there are."""
    longest = model.readout_horizon + (0 if model.family in _ONE_PASS else 9)
    require_same(model, 2, of=longest)


def test_the_graph_of_a_pruned_model_with_uneven_heads(model: Forecaster) -> None:
    stack = model.anatomy.stacks[-1]
    role = stack.blocks[0].attention[-1].role
    pruned = prune(
        model, [f"{stack.name}.0.{role}.head.0", f"{stack.name}.1.*.head.*", f"{stack.name}.0.mlp"]
    )
    require_same(pruned, model.readout_horizon)


def test_gaps_are_filled_as_scipy_fills_them() -> None:
    rng = np.random.default_rng(1)
    for length in (1, 2, 7, 64):
        series = rng.normal(size=(20, length)).astype(np.float32)
        series[rng.random(series.shape) < 0.4] = np.nan
        series[np.arange(20), rng.integers(0, length, 20)] = 1.5  # one is observed
        found, front = (part.numpy() for part in without_gaps(torch.from_numpy(series), 64))
        for row, values, before in zip(series, found, front, strict=True):
            seen = np.flatnonzero(~np.isnan(row))
            assert before.tolist() == [place < seen[0] for place in range(length)]
            after = np.arange(seen[0], length)
            ends = (row[seen[0]], row[seen[-1]])
            line = interp1d(seen, row[seen], bounds_error=False, fill_value=ends) if len(seen) > 1 else None
            expected = np.full(len(after), row[seen[0]]) if line is None else line(after)
            np.testing.assert_allclose(values[after], expected, rtol=1e-6, atol=1e-6)
            assert (values[before] == 0).all()


def test_empirical_quantiles_are_those_of_torch() -> None:
    values, levels = torch.randn(3, 11, 4), [0.0, 0.1, 0.5, 0.77, 1.0]
    expected = torch.quantile(values, torch.tensor(levels), dim=1).transpose(0, 1)
    torch.testing.assert_close(empirical_quantiles(values, levels), expected)


def test_values_are_carried_forward() -> None:
    nan = float("nan")
    series = torch.tensor([[nan, 2.0, nan, nan, 5.0, nan], [1.0, nan, 3.0, 4.0, nan, 6.0]])
    expected = [[0, 2, 2, 2, 5, 5], [1, 1, 3, 4, 4, 6]]
    assert filled_forward(series, 6).tolist() == expected


def test_moments_are_those_of_what_is_known_so_far() -> None:
    """Far from zero, where sums of squares in single precision have nothing left."""
    rng = np.random.default_rng(2)
    values, known = 1e4 + rng.normal(size=(5, 24)), rng.random((5, 24)) < 0.6
    series, given = torch.from_numpy(np.where(known, values, 0)), torch.from_numpy(known)
    mean, variance = (x.numpy() for x in causal_moments(series, given))
    patches = series.unflatten(1, (-1, 4)), ~given.unflatten(1, (-1, 4))
    location, deviation = (x.numpy() for x in running_moments(*patches))
    for row in range(5):
        for end in range(1, 25):
            seen = values[row, :end][known[row, :end]]
            assert mean[row, end - 1] == pytest.approx(seen.mean() if len(seen) else 0)
            spread = seen.var(ddof=1) if len(seen) > 1 else 0
            assert variance[row, end - 1] == pytest.approx(spread, rel=1e-6, abs=1e-6)
            if end % 4 == 0:
                place = end // 4 - 1
                assert location[row, place] == pytest.approx(seen.mean() if len(seen) else 0)
                assert deviation[row, place] == pytest.approx(seen.std() if len(seen) else 0, abs=1e-6)


def test_each_position_sees_itself_and_the_allowed_ones_before_it() -> None:
    found = causal_mask(torch.tensor([[False, True, False, True]]))[0, 0].int()
    assert found.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]


def test_quantiles_stay_within_reach_of_known_values() -> None:
    quantiles = torch.tensor([[[-50.0, 3.0], [4.0, 50.0]]])
    values, known = torch.tensor([[1.0, 9.0, 5.0]]), torch.tensor([[True, False, True]])
    assert bounded(quantiles, values, known, torch.full((1, 1, 1), 10.0)).tolist() == [[[-9, 3], [4, 15]]]
