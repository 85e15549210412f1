"""int8: smaller weights, forecasts that stay near, and products in fp32 where the loss asks for it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.suites import small_suite
from tsprune.deployment import Exported, quantisation
from tsprune.deployment.description import GRAPH, Description
from tsprune.deployment.graph_sessions import graph_session
from tsprune.deployment.quantisation import quantised, weight_products
from tsprune.errors import TspruneError
from tsprune.models import Forecaster

Pair = tuple[Forecaster, Exported]


def copied(found: Exported, folder: Path) -> tuple[Path, Description]:
    folder.mkdir()
    shutil.copy(Path(found.name) / GRAPH, folder / GRAPH)
    return folder, found.description


def test_weights_are_smaller_and_forecasts_near(one_pass: Pair, tmp_path: Path) -> None:
    model, found = one_pass
    folder, about = copied(found, tmp_path / "int8")
    before, products = (folder / GRAPH).stat().st_size, weight_products(folder / GRAPH)
    after = quantised(folder, about, small_suite())
    assert (after.precision, [path.name for path in folder.iterdir()]) == ("int8", [GRAPH])
    assert set(after.kept_fp32) < set(products)
    assert (folder / GRAPH).stat().st_size < before
    assert set(weight_products(folder / GRAPH)) == set(after.kept_fp32)
    history = [np.sin(np.arange(40) / 3).astype(np.float32)]
    rounded = Exported("int8", after, graph_session(folder / GRAPH), 0).forecast(history, 2).quantiles
    exact = model.forecast(history, 2).quantiles
    assert 0 < np.abs(rounded - exact).max() < 0.5 * np.abs(exact).max()


def test_where_no_loss_is_allowed_the_least_is_taken(
    one_pass: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.4, 0.1, 0.3, 0.2])
    monkeypatch.setattr(quantisation, "_loss", lambda *_: next(losses))
    folder, about = copied(one_pass[1], tmp_path / "int8")
    products = weight_products(folder / GRAPH)
    kept = quantised(folder, about, small_suite()).kept_fp32
    assert kept[-3:] == tuple(products)[-3:]  # the second candidate: the readout, in every pass
    assert {products[name] for name in kept} == {products[name] for name in tuple(products)[-3:]}


def test_windows_beyond_the_horizon_cannot_measure(one_pass: Pair, tmp_path: Path) -> None:
    folder, about = copied(one_pass[1], tmp_path / "int8")
    with pytest.raises(TspruneError, match="export with a longer horizon"):
        quantised(folder, dataclasses.replace(about, horizon=1), small_suite())
