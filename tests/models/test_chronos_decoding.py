"""Chronos-T5's own loop draws the paths that upstream's draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tsprune
from tests.suites import tiny
from tests.tiny import uneven
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, chronos
from tsprune.models.chronos_decoding import quick_decoding
from tsprune.pruning import prune

SERIES = [np.sin(np.arange(40.0)), np.arange(17.0), np.where(np.arange(30) % 7, np.arange(30.0), np.nan)]


def require_same_paths(model: Forecaster, horizon: int) -> None:
    """Values of tokens are exact, so equal paths are equal to the last bit."""
    plain = model.forecast(SERIES, horizon)
    with model.quick():
        found = model.forecast(SERIES, horizon)
    np.testing.assert_array_equal(found.quantiles, plain.quantiles)


def test_paths_are_upstreams_whole_pruned_and_ablated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("tiny-chronos-t5")
    assert isinstance(model, chronos.Chronos)
    assert quick_decoding(model) is not None
    require_same_paths(model, 2 * model.readout_horizon + 1)
    monkeypatch.setattr(chronos, "_ROWS", 2 * model.samples)  # the series in two parts
    require_same_paths(model, 3)
    for mode in ("zero", "mean", "resample"):
        off = ["encoder.1.self.head.1", "decoder.0.self.head.1", "decoder.1.cross.head.0", "decoder.*.mlp"]
        with tsprune.ablate(model, off, mode=mode):
            assert quick_decoding(model) is not None
            require_same_paths(model, 3)
    without = prune(model, [*uneven(model), "decoder.1.mlp", "decoder.0.cross"])
    assert isinstance(without, chronos.Chronos)
    assert quick_decoding(without) is not None
    require_same_paths(without, 3)


def test_sublayers_and_layers_are_ablated() -> None:
    model = tiny("tiny-chronos-t5")
    for off in (["decoder.0.self", "decoder.1.cross"], ["decoder.1", "encoder.0"]):
        with tsprune.ablate(model, off):
            require_same_paths(model, 3)


def test_upstreams_loop_runs_where_a_hook_would_wait_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = tiny("tiny-chronos-t5"), []
    assert isinstance(model, chronos.Chronos)
    site = model.module.get_submodule("decoder.block.0.layer.0.SelfAttention")
    handle = site.register_forward_hook(lambda *_: calls.append(1))
    with model.quick():
        model.forecast(SERIES, 3)
    assert len(calls) == 3
    handle.remove()
    monkeypatch.setattr(model.upstream.model.config, "top_p", 0.5)
    assert quick_decoding(model) is None


def test_changed_weights_and_another_seed_are_seen() -> None:
    model = tiny("tiny-chronos-t5")
    assert isinstance(model, chronos.Chronos)
    assert quick_decoding(model) is quick_decoding(model)
    weight = model.module.get_parameter("decoder.block.0.layer.0.SelfAttention.q.weight")
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(3.0)
        model.seed = 5
        require_same_paths(model, 3)
    finally:
        model.seed = 0
        with torch.no_grad():
            weight.copy_(before)
    require_same_paths(model, 3)


def test_a_path_that_is_not_finite_is_refused() -> None:
    model = tiny("tiny-chronos-t5")
    weight = model.module.get_parameter("decoder.block.1.layer.2.DenseReluDense.wo.weight").detach()
    before = weight[0, 0].item()
    try:
        weight[0, 0] = np.nan
        with model.quick(), pytest.raises(TspruneError, match="not finite"):
            model.forecast(SERIES, 3)
    finally:
        weight[0, 0] = before
