"""Upstream's pipelines and networks in memory, studied as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toto.inference.forecaster import TotoForecaster

from tests.suites import tiny
from tests.tiny import TINY, few_samples, pristine, ragged
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import ablate
from tsprune.models import Forecaster, load
from tsprune.pruning import prune

FAMILIES = [name for name in TINY if not name.endswith("cached")]


def objects(model: Forecaster) -> list[Any]:
    found = [model.upstream, model.module]
    return [*found, TotoForecaster(model.module)] if model.family == "toto" else found


@pytest.mark.parametrize("name", FAMILIES)
def test_they_forecast_are_ablated_pruned_and_saved(name: str, tmp_path: Path) -> None:
    original = few_samples(tiny(name))
    contexts = ragged(original, 2)
    expected = original.forecast(contexts, 5).quantiles
    for number, given in enumerate(objects(original)):
        with pristine(original):
            model = few_samples(load(given))
            model.context_length = original.context_length
            assert model.anatomy == original.anatomy
            assert model.name == f"{type(given).__name__} in memory"
            np.testing.assert_array_equal(model.forecast(contexts, 5).quantiles, expected)
            last = f"{model.anatomy.stacks[-1].name}.1.mlp"
            with ablate(model, last):
                model.forecast(contexts, 5)
            pruned = prune(model, last)
            pruned.save(tmp_path / str(number))
        again = few_samples(load(tmp_path / str(number), device="cpu"))
        again.context_length = pruned.context_length
        np.testing.assert_array_equal(
            again.forecast(contexts, 5).quantiles, pruned.forecast(contexts, 5).quantiles
        )


def test_the_wrapper_of_timesfm_keeps_its_settings() -> None:
    wrapper = tiny("tiny-timesfm").upstream
    before = wrapper.forecast_config if hasattr(wrapper, "forecast_config") else None
    load(wrapper).forecast([[1.0, 2.0, 3.0] * 10], 3)
    assert getattr(wrapper, "forecast_config", None) is before


@pytest.mark.parametrize("given", [None, 3, {}, torch.nn.Linear(2, 2), b"bundled:timesfm", object])
def test_other_objects(given: object) -> None:
    with pytest.raises(TspruneError, match="cannot load a"):
        load(given)


def test_places_and_precisions_that_it_does_not_have() -> None:
    pipeline = tiny("tiny-chronos-bolt").upstream
    with pytest.raises(TspruneError, match="convert it yourself"):
        load(pipeline, dtype="bfloat16")
    with pytest.raises(TspruneError, match="neither a revision"):
        load(pipeline, revision="main")
    assert load(pipeline, device="cpu", dtype="float32").family == "chronos-bolt"
