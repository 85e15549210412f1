"""An exported model forecasts as its model does, alone and in any batch, without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import tsprune
from tests.deployment.conftest import Pair
from tests.deployment.exported_laws import (  # noqa: F401
    test_a_gap_over_the_cut_is_filled_from_before_it,
    test_any_number_of_series_and_any_batch,
    test_forecasts_are_the_models,
    test_the_folder_describes_and_tests_itself,
)
from tests.suites import small_suite
from tsprune.errors import TspruneError


def test_it_can_be_evaluated(exported: Pair) -> None:
    model, found = exported
    suite = small_suite()
    ours, theirs = (tsprune.evaluate(one, suite).frame for one in (found, model))
    theirs = theirs[theirs["configuration"].isin(ours["configuration"])]  # one horizon is beyond a tiny pass
    assert len(ours)
    for metric in ("MASE", "CRPS"):
        np.testing.assert_allclose(ours[metric], theirs[metric], rtol=1e-4)


def test_what_it_refuses(exported: Pair) -> None:
    model, found = exported
    with pytest.raises(
        TspruneError, match=f"for up to {found.horizon} steps, not {found.horizon + 1}; export"
    ):
        found.forecast([[1.0, 2.0]], found.horizon + 1)
    for wrong in ([], [[]], [[np.nan]], ["text"], 3):
        with pytest.raises(TspruneError) as ours:
            found.forecast(wrong, 1)  # type: ignore[arg-type]
        with pytest.raises(TspruneError) as theirs:
            model.forecast(wrong, 1)  # type: ignore[arg-type]
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(TspruneError, match="is an exported model, without components"):
        tsprune.load(found.name)


ALONE = """
import json, sys
import numpy as np
import tsprune
model = tsprune.load_exported(sys.argv[1])
rng = np.random.default_rng(3)
found = model.forecast([rng.normal(size=50).astype(np.float32)], 2)
heavy = {"torch", "transformers", "chronos", "timesfm", "pandas", "scipy", "onnx"} & set(sys.modules)
print(json.dumps({"quantiles": found.quantiles.tolist(), "imported": sorted(heavy)}))
"""


def test_a_fresh_process_needs_neither_torch_nor_upstream(exported: Pair) -> None:
    _, found = exported
    done = subprocess.run(
        [sys.executable, "-c", ALONE, found.name], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    # the inverse distribution functions of Moirai's mixture
    assert result["imported"] == (["scipy"] if found.family in ("moirai", "moirai-moe") else [])
    series = np.random.default_rng(3).normal(size=50).astype(np.float32)
    expected = found.forecast([series], 2).quantiles
    np.testing.assert_array_equal(np.array(result["quantiles"], np.float32), expected)
