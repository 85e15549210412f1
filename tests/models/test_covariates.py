"""Past covariates: read beside a context and not forecast, as upstream reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from uni2ts.model.moirai import MoiraiForecast

from tests.tiny import few_samples, write_bolt, write_chronos2, write_moirai, write_moirai_moe, write_toto
from tsprune.errors import TspruneError
from tsprune.models import load
from tsprune.models.chronos2 import Chronos2
from tsprune.models.contexts import CovariateContext, read_contexts
from tsprune.models.forecaster import Forecaster
from tsprune.models.moirai import Moirai, inputs

WRITERS = {
    "chronos2": write_chronos2,
    "moirai": write_moirai,
    "moirai-moe": write_moirai_moe,
    "toto": write_toto,
    "bolt": write_bolt,
}
HORIZON = 8


def walk(rows: int, steps: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng([rows, steps, seed])
    return (rng.standard_normal((rows, steps)).cumsum(1) + 30).astype(np.float32)


def contexts() -> list[dict[str, Any]]:
    """Two of 2 variates with 3 past covariates, and one series with 1; all have gaps."""
    first, second, third = walk(2, 70), walk(2, 60), walk(1, 50)[0]
    past = walk(3, 70, 1)
    first[0, 5:9] = past[1, 61:] = third[3] = np.nan
    return [
        {"target": first, "past_covariates": dict(zip("xyz", past, strict=True))},
        {"target": second, "past_covariates": walk(3, 60, 1)},
        {"target": third, "past_covariates": walk(1, 50, 2)[0]},
    ]


@pytest.fixture(scope="module", params=WRITERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    path: Path = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](path)
    return few_samples(load(str(path), device="cpu"))


def test_a_forecast_is_of_the_targets_alone(model: Forecaster) -> None:
    if not model.past_covariates:
        with pytest.raises(
            TspruneError, match=r"series 0 has past covariates, which .* pass its target alone"
        ):
            model.forecast(contexts(), HORIZON)
        return
    together = model.forecast(contexts(), HORIZON).quantiles
    assert together.shape == (5, 9, HORIZON)
    assert np.isfinite(together).all()
    assert len(model.teacher_forced(contexts())) == 5
    without = model.forecast([context["target"] for context in contexts()], HORIZON).quantiles
    assert not np.isclose(together, without).all(axis=(1, 2)).any()
    as_arrays = [CovariateContext(x["target"], walk(3, 60, 1)) for x in contexts()[1:2]]
    expected = model.forecast(contexts()[1:2], HORIZON).quantiles
    np.testing.assert_array_equal(model.forecast(as_arrays, HORIZON).quantiles, expected)


def test_no_covariates_are_no_covariates(model: Forecaster) -> None:
    target = walk(2, 64)
    expected = model.forecast([target], HORIZON).quantiles
    for empty in ({}, {"past_covariates": {}}, {"past_covariates": []}):
        found = model.forecast([{"target": target, **empty}], HORIZON).quantiles
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("model", ["chronos2"], indirect=True)
def test_chronos2_is_upstreams_with_dictionaries(model: Forecaster) -> None:
    assert isinstance(model, Chronos2)
    cut = slice(-model.context_length, None)
    given = [
        {
            "target": x["target"][..., cut],
            "past_covariates": {name: row[..., cut] for name, row in past.items()},
        }
        for x in contexts()[:2]
        for past in [
            x["past_covariates"]
            if isinstance(x["past_covariates"], dict)
            else dict(zip("xyz", x["past_covariates"], strict=True))
        ]
    ]
    found, _ = model.upstream.predict_quantiles(
        given, prediction_length=HORIZON, quantile_levels=list(model.forecast([walk(1, 9)], 1).levels)
    )
    expected = torch.cat(found).transpose(1, 2).numpy()
    np.testing.assert_array_equal(model.forecast(contexts()[:2], HORIZON).quantiles, expected)


@pytest.mark.parametrize("model", ["moirai"], indirect=True)
def test_moirai_is_upstreams_distribution(model: Forecaster) -> None:
    """Upstream's class with as many past features, its own cut of the targets' future."""
    assert isinstance(model, Moirai)
    rows = [context.values[..., -model.context_length :] for context in read_contexts(contexts()[:2])]
    length = max(x.shape[-1] for x in rows)
    upstream = MoiraiForecast(
        prediction_length=HORIZON, context_length=length, module=model.module, patch_size=model.patch,
        target_dim=2, feat_dynamic_real_dim=0, past_feat_dynamic_real_dim=3,
    )  # fmt: skip
    with torch.no_grad():
        whole = upstream._get_distr(model.patch, **inputs(rows, model.device, 3))
        expected = upstream._format_preds(model.patch, whole.mean[None], 2)[:, 0]  # [2, H, V]
        future = model._distribution(rows, HORIZON, 3)
        shares = future.weights.probs
        means = torch.stack([part.mean for part in future.components], -1)
        found = ((shares * means).sum(-1) * future.scale + future.loc).flatten(1)[:, :HORIZON]
    torch.testing.assert_close(found.unflatten(0, (2, 2)), expected.transpose(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"past_covariates": {}}, "has the keys past_covariates"),
        ({"target": [1.0, 2], "future_covariates": {}}, "has the keys target, future_covariates"),
        ({"target": [1.0, 2], "past_covariates": {"a": [1.0]}}, r"2 steps, and its past covariate 'a' has 1"),
        ({"target": [1.0, 2], "past_covariates": np.ones((2, 3))}, "2 steps, and its past .* has 2 x 3"),
        ({"target": [1.0, 2], "past_covariates": {"a": ["x", "y"]}}, "not a sequence of numbers but of text"),
        ({"target": [np.nan, np.nan], "past_covariates": {"a": [1.0, 2]}}, "no observed value"),
        ({"target": [1.0, 2], "past_covariates": 3.0}, "'past_covariates' has"),
    ],
)
def test_refused_in_one_line(context: dict[str, Any], message: str) -> None:
    with pytest.raises(TspruneError, match=rf"^series 1 .*{message}"):
        read_contexts([[1.0, 2.0], context])  # type: ignore[list-item]


def test_infinite_and_missing_covariates_are_missing() -> None:
    (found,) = read_contexts([{"target": [1, 2], "past_covariates": {"a": [np.inf, None], "b": [3, 4]}}])
    assert found.covariates == 2
    np.testing.assert_array_equal(found.values, np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32))
