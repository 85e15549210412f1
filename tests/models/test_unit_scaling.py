"""Unit scaling: which gradients a product has, and that upstream's functions come back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from dd_unit_scaling import scale
from unit_scaling import scale as first_scale

from tsprune.models.unit_scaling import exact_gradients, quick_scales

Context = Callable[[], AbstractContextManager[None]]


@pytest.mark.parametrize("functions", [scale, first_scale])
@pytest.mark.parametrize(
    ("context", "gradient"),
    # upstream scales the gradient by 3 and not by 5; the derivative is 5
    [(nullcontext, 3.0), (quick_scales, 3.0), (exact_gradients, 5.0)],
    ids=["upstream's", "of forecasts", "exact"],
)
def test_a_gradient_is_scaled_unless_exact(functions: object, context: Context, gradient: float) -> None:
    """A forecast changes no gradient of a training that runs beside it."""
    x = torch.tensor([2.0, -1.0], requires_grad=True)
    with context():
        y = functions.scale_fwd(functions.scale_bwd(x, 3.0), 5.0)  # type: ignore[attr-defined]
        y.sum().backward()
    assert y.tolist() == [10.0, -5.0]
    assert x.grad is not None
    assert x.grad.tolist() == [gradient, gradient]


def test_the_innermost_of_both_is_exact_and_nothing_is_left() -> None:
    upstream = scale._ScaledGrad, first_scale._ScaledGrad
    x = torch.ones(1, requires_grad=True)
    with quick_scales(), exact_gradients(), quick_scales():
        (gradient,) = torch.autograd.grad(scale.scale_bwd(x, 3.0).sum(), x)
    assert gradient.item() == 1
    assert (scale._ScaledGrad, first_scale._ScaledGrad) == upstream


def test_upstreams_function_is_not_called_for_a_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    apply = scale._ScaledGrad.apply
    monkeypatch.setattr(scale._ScaledGrad, "apply", lambda *given: called.append(given) or apply(*given))
    with torch.no_grad():
        with quick_scales():
            assert scale.scale_fwd(torch.ones(1), 3.0).item() == 3
        assert not called
        scale.scale_fwd(torch.ones(1), 3.0)
    assert called
