"""The readout is the forecast, and its gradient is that of the forecast; screening runs everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests.capabilities import CAPABILITIES
from tests.suites import configuration
from tests.tiny import full_length, output_patch, pristine, ragged, spread
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.hooks.capture import point_of
from tsprune.models import Forecaster
from tsprune.scores import screen


@pytest.fixture
def differentiable(model: Forecaster) -> Forecaster:
    if CAPABILITIES[model.family].samples:
        pytest.skip("samples its forecasts")
    return model


def test_the_readout_is_the_forecast(differentiable: Forecaster) -> None:
    for horizon in (1, differentiable.readout_horizon):
        readout = differentiable.readout(ragged(differentiable, 3), horizon)
        expected = differentiable.forecast(ragged(differentiable, 3), horizon).quantiles
        # torch has other attention kernels where gradients are recorded
        size = np.abs(expected).max()
        np.testing.assert_allclose(readout.detach().numpy(), expected, rtol=1e-4, atol=1e-5 * size)
        assert readout.requires_grad


def test_its_horizon_is_one_pass(differentiable: Forecaster) -> None:
    # Toto 2.0 forecasts several patches at once
    steps = (
        differentiable.context_length if differentiable.family == "toto2" else output_patch(differentiable)
    )
    assert differentiable.readout_horizon == steps
    with pytest.raises(TspruneError, match="over one pass"):
        differentiable.readout(ragged(differentiable, 2), differentiable.readout_horizon + 1)


def test_frozen_parameters_leave_nothing_to_differentiate(differentiable: Forecaster) -> None:
    differentiable.module.requires_grad_(False)
    try:
        with pytest.raises(TspruneError, match="frozen"):
            differentiable.readout(ragged(differentiable, 2), 1)
    finally:
        differentiable.module.requires_grad_(True)


@contextmanager
def scaled(model: Forecaster, head: object, factor: torch.Tensor) -> Iterator[None]:
    """One head's share of the input of its output projection, times `factor`."""
    point = point_of(model.anatomy, head)  # type: ignore[arg-type]
    columns = model.anatomy.site(head).columns(head.head)  # type: ignore[arg-type,attr-defined]

    def hook(_module: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        mask = torch.zeros(args[0].shape[-1])
        mask[columns] = 1
        return (args[0] * (1 + (factor - 1) * mask), *args[1:])

    handle = model.module.get_submodule(point.path).register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_its_gradient_is_that_of_the_forecast(differentiable: Forecaster) -> None:
    """By how much the forecast changes as a head is turned down, against finite differences."""
    model, contexts = differentiable, full_length(differentiable, 3)
    horizon = min(5, model.readout_horizon)
    for head in spread(model.anatomy.components("head"), 4):
        factor = torch.ones((), requires_grad=True)
        with scaled(model, head, factor):
            readout = model.readout(contexts, horizon)
        weights = torch.randn(readout.shape, generator=torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad((readout * weights).sum(), factor)
        sides = []
        for step in (0.005, -0.005):
            with scaled(model, head, torch.tensor(1 + step)):
                sides.append(float((model.forecast(contexts, horizon).quantiles * weights.numpy()).sum()))
        size = float((readout * weights).detach().abs().sum())
        assert float(gradient) == pytest.approx((sides[0] - sides[1]) / 0.01, rel=0.05, abs=1e-4 * size)


def test_models_that_sample_have_a_differentiable_output_only(model: Forecaster) -> None:
    output = model.differentiable_output(ragged(model, 3))
    assert output.requires_grad
    expected = model.teacher_forced(ragged(model, 3)).detach()
    torch.testing.assert_close(output.detach(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    if CAPABILITIES[model.family].samples:
        with pytest.raises(TspruneError, match="samples"):
            model.readout(ragged(model, 2), 1)


def test_upstreams_own_switching_off_of_gradients_works_afterwards(model: Forecaster) -> None:
    model.differentiable_output(full_length(model, 2))
    with torch.no_grad():
        assert not model.differentiable_output(full_length(model, 2)).detach().requires_grad
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_screening(model: Forecaster) -> None:
    lengths = [model.context_length + 7, model.context_length // 2 + 3, model.context_length + 7]
    suite = Suite("small", (configuration("a/D/short", lengths, horizon=3),))
    with pristine(model):
        frame = screen(model, suite)
    assert frame["address"].tolist() == [c.address for c in model.anatomy.components()]
    # derivatives do not see a whole sublayer whose output is normed
    seen = (frame["kind"] == "head") | (not CAPABILITIES[model.family].norms_outputs)
    np.testing.assert_array_equal(np.isfinite(frame["score"]), seen)
    assert frame.loc[seen, "crps_change"].isna().all() == CAPABILITIES[model.family].samples
    assert (frame.loc[seen, "curvature"] > 0).mean() > 0.9
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_what_a_forecast_does_not_use_of_the_readout_may_be_anything(model: Forecaster) -> None:
    if not CAPABILITIES[model.family].reads_one_position:
        pytest.skip("uses more of its readout than one position")
    readout = model.anatomy.readout
    assert readout is not None

    def spoil(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        kept = range(output.shape[1])[readout.position]
        spoilt = torch.full_like(output, torch.nan)
        spoilt[:, kept] = output[:, kept]
        return spoilt

    for horizon in (1, 3 * output_patch(model)):  # in one pass, and step by step
        expected = model.forecast(ragged(model, 3), horizon).quantiles
        paths = (readout.modules[-1], *readout.others)
        handles = [model.module.get_submodule(path).register_forward_hook(spoil) for path in paths]
        try:
            np.testing.assert_array_equal(model.forecast(ragged(model, 3), horizon).quantiles, expected)
        finally:
            for handle in handles:
                handle.remove()
