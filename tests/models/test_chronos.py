"""Chronos-T5: sharing a window's context among its paths saves work and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.overrides import _get_current_function_mode_stack

from tests.suites import tiny
from tests.tiny import full_length, pristine
from tsprune.models import SamplingForecaster, draws
from tsprune.models.chronos import _PathsTogether, shared_context

SAMPLES = 6


def sampled(
    model: SamplingForecaster, windows: list[np.ndarray], horizon: int, *, shared: bool
) -> np.ndarray:
    noise = draws.Noise(windows, 0)
    crossing = [model.module.get_submodule(s.module) for _, s in model.anatomy.sites() if s.role == "cross"]
    decoder = model.module.get_submodule("decoder")
    drawing = (
        shared_context(crossing, decoder, noise, SAMPLES)
        if shared
        else draws.CategoricalDraws(noise, SAMPLES)
    )
    with drawing:
        contexts = [torch.from_numpy(x) for x in windows]
        return model.upstream.predict(contexts, horizon, num_samples=SAMPLES).numpy()  # type: ignore[attr-defined]


@pytest.mark.parametrize("horizon", [1, 8, 13])  # 8 is one pass, 13 conditions a second one on the first
def test_paths_are_those_that_do_not_share(horizon: int) -> None:
    """Also for contexts of unequal length, where windows see different masks."""
    model = tiny("tiny-chronos-t5")
    assert isinstance(model, SamplingForecaster)
    windows = [x[-length:] for x, length in zip(full_length(model, 3), (48, 20, 5), strict=True)]
    with pristine(model):
        shared = sampled(model, windows, horizon, shared=True)
    np.testing.assert_array_equal(shared, sampled(model, windows, horizon, shared=False))
    assert len(np.unique(shared)) > SAMPLES


def test_cross_attention_reads_keys_once_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("tiny-chronos-t5")
    assert isinstance(model, SamplingForecaster)
    inner: Callable[..., Any] = functional.scaled_dot_product_attention
    read: list[tuple[int, int]] = []

    def attention(self: _PathsTogether, func: Any, query: Any, key: Any, value: Any, **how: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            read.append((len(args[1]), args[0].shape[-2]))
            return inner(*args, **kwargs)

        return original(self, counted, query, key, value, **how)

    original = _PathsTogether._attended
    monkeypatch.setattr(_PathsTogether, "_attended", attention)
    sampled(model, full_length(model, 3), 4, shared=True)
    layers, steps = model.module.config.num_decoder_layers, 4
    assert read == [(3, SAMPLES)] * (layers * steps)


def test_no_hook_stays_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("tiny-chronos-t5")
    monkeypatch.setattr(draws, "categorical", lambda *_: 1 / 0)
    with pristine(model), pytest.raises(ZeroDivisionError):
        model.forecast(full_length(model, 2), 3)


def test_no_mode_stays_after_an_error_inside_the_decoder() -> None:
    model = tiny("tiny-chronos-t5")
    for path in (
        "decoder.block.1.layer.1.EncDecAttention.o",
        "decoder.block.0.layer.0",
        "lm_head",
        "encoder",
    ):
        broken = model.module.get_submodule(path).register_forward_pre_hook(lambda *_: 1 / 0)
        try:
            with pytest.raises(ZeroDivisionError):
                model.forecast(full_length(model, 2), 3)
        finally:
            broken.remove()
        assert _get_current_function_mode_stack() == []
