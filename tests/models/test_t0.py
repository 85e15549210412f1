"""t0: upstream's settings for benchmarks, their gradients, and configs of pruned models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from t0.torch import T0Forecaster

from tests.tiny import write_t0
from tests.upstream import upstream_t0
from tsprune import prune
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, load
from tsprune.models.t0 import _pattern


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("t0")
    write_t0(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Forecaster:
    return load(str(folder), device="cpu")


def contexts() -> list[NDArray[np.float32]]:
    """Series that upstream averages, clips, rounds, and leaves alone; some of one length, one with a gap."""
    rng = np.random.default_rng(0)
    walk = rng.standard_normal(60).cumsum()
    counts = rng.poisson(2.0, 60).astype(float)
    late = walk.copy()
    late[:21] = np.nan
    series = [walk, np.abs(walk) + 0.5, counts, np.maximum(counts - 2, 0)[:41], late, np.zeros(30)]
    return [values.astype(np.float32) for values in series]


def test_forecasts_with_every_adjustment_are_upstreams(model: Forecaster, folder: Path) -> None:
    upstream = upstream_t0(folder)
    for horizon in (3, 20):
        found = model.forecast(contexts(), horizon).quantiles
        np.testing.assert_array_equal(found, upstream(contexts(), horizon))
    assert (found[2] == np.round(found[2])).all()
    assert (found[1] >= 0).all()


def test_the_readout_is_the_forecast_with_gradients(model: Forecaster) -> None:
    found = model.readout(contexts(), 11)
    np.testing.assert_array_equal(found.detach().numpy(), model.forecast(contexts(), 11).quantiles)
    parameters = [p for name, p in model.module.named_parameters() if "wQKV" in name]
    gradients = torch.autograd.grad(found[0].sum(), parameters)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients[::2])
    several = [np.stack(contexts()[:2]), contexts()[0]]
    with pytest.raises(TspruneError, match="equal numbers of variates"):
        model.readout(several, 11)


def test_past_covariates_are_variates_that_are_not_returned(model: Forecaster) -> None:
    target, past = np.stack(contexts()[:2]), contexts()[2][None]
    found = model.forecast([{"target": target, "past_covariates": past}], 9).quantiles
    together = model.forecast([np.concatenate([target, past])], 9).quantiles
    np.testing.assert_array_equal(found, together[:2])


@pytest.mark.parametrize("layers", range(1, 9))
def test_patterns_are_upstreams(layers: int) -> None:
    for every in (-1, *range(1, layers + 1)):
        if layers % abs(every) == 0:
            upstream = T0Forecaster(
                embed_dim=8, num_layers=layers, num_heads=1, mlp_hidden_dim=8, patch_size=4,
                group_every_n=every, dropout=0.0, quantile_levels=(0.5,),
            )  # fmt: skip
            roles = [layer.attention_type.value for layer in upstream.transformer.layers]
            assert _pattern(layers, every) == roles


@pytest.mark.parametrize(
    ("gone", "stated"),
    [
        (["stack.2", "stack.3"], {"num_layers": 2, "group_every_n": 2}),
        (["stack.1", "stack.3"], {"num_layers": 2, "group_every_n": -1}),
        (["stack.0", "stack.2"], {"num_layers": 2, "group_every_n": 1}),
        (["stack.3"], None),
    ],
)
def test_upstream_reads_what_its_config_can_say(
    model: Forecaster, tmp_path: Path, gone: list[str], stated: dict[str, int] | None
) -> None:
    small = prune(model, gone)
    assert small.origin is not None
    config = small.upstream_config(small.config_file())
    if stated is None:
        assert config is None
        return
    assert config is not None
    assert config.items() >= stated.items()
    small.save(tmp_path / "small")
    np.testing.assert_array_equal(
        small.forecast(contexts(), 5).quantiles, upstream_t0(tmp_path / "small")(contexts(), 5)
    )
