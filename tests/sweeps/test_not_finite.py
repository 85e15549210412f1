"""A sweep records an ablation whose forecast is not finite as failed; it is never a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.suites import small_suite, tiny
from tests.tiny import few_samples
from tsprune.evaluation import evaluate
from tsprune.hooks.ablation import ablate
from tsprune.hooks.capture import Reference, point_of, reference, reference_contexts
from tsprune.models import Forecaster
from tsprune.models.forecaster import NotFiniteError
from tsprune.sweeps import sweep

FAMILIES = ("chronos-bolt", "chronos-t5", "toto", "moirai")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Forecaster:
    return few_samples(tiny(f"tiny-{request.param}"))


def poisoned(model: Forecaster, number: int) -> Reference:
    """A reference whose mean is NaN for the MLP of that number."""
    mlps = model.anatomy.components("mlp")
    found = reference(model, list(reference_contexts(model))[:4], components=mlps)
    values = {
        point: {t: x.clone() for t, x in by_length.items()} for point, by_length in found.values.items()
    }
    for x in values[point_of(model.anatomy, mlps[number])].values():
        x[0] = torch.nan
    return Reference(values)


@pytest.mark.parametrize("stored", [False, True])
def test_the_cells_are_failed_and_the_others_are_as_ever(
    model: Forecaster, stored: bool, tmp_path: Path
) -> None:
    store = tmp_path / "store.sqlite" if stored else None
    bad, mlps = poisoned(model, 1), [c.address for c in model.anatomy.components("mlp")]
    table = sweep(model, small_suite(), kind="mlp", mode="mean", reference=bad, store=store)
    frame = table.frame.set_index("address")
    others = [address for address in mlps if address != mlps[1]]
    assert frame.loc[mlps[1], ["mase_change", "crps_change", "spearman_distance"]].isna().all()
    assert np.isfinite(frame.loc[others, "mase_change"].astype(float)).all()
    assert {where.split(" on ")[0] for where, _ in table.failed} == {mlps[1]}
    assert all("the forecast is not finite" in error for _, error in table.failed)


def test_the_error_names_the_component(model: Forecaster) -> None:
    mlp = model.anatomy.components("mlp")[1]
    with (
        pytest.raises(NotFiniteError, match=f"the forecast is not finite.*without {mlp}"),
        ablate(model, mlp, mode="mean", reference=poisoned(model, 1)),
    ):
        model.forecast([np.arange(40.0)], 3)


def test_one_window_that_is_too_large_is_left_out(model: Forecaster) -> None:
    suite = small_suite()
    suite.configurations[0].contexts[0][::2] = 3e38
    suite.configurations[0].contexts[0][1::2] = -3e38
    table = evaluate(model, suite)
    frame = table.frame
    lost = [what for what, why in table.skipped if "the forecast is not finite" in why]
    assert lost == ["first/D/short, window 0"]
    assert frame.loc[0, "windows"] == 4
    assert np.isfinite(frame.loc[0, "MASE"])
