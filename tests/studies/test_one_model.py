"""What a study says of why: the same as `overview` on few windows, and nothing if it is not asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.suites import configuration, tiny
from tsprune import study
from tsprune.data import Suite
from tsprune.explain import head_effects
from tsprune.models import Forecaster
from tsprune.report.study_page import render_report
from tsprune.studies import Study
from tsprune.studies.one_model import explained
from tsprune.studies.study_result import results_table, write_results
from tsprune.studies.study_settings import EXPLAINED_DRAWS, EXPLAINED_SHARES, EXPLAINED_WINDOWS

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75, 128, 100], 12),))


@pytest.fixture(scope="module")
def result() -> Study:
    models: list[Forecaster] = [tiny("tiny-timesfm"), tiny("tiny-chronos-bolt")]
    return study(models, SUITE)


def test_a_study_explains_on_few_windows(result: Study) -> None:
    model, one = tiny("tiny-timesfm"), result.models[0]
    found = one.explanation
    assert found is not None
    assert found.windows == EXPLAINED_WINDOWS
    assert set(found.effects["percent"]) == {100 * share for share in EXPLAINED_SHARES}
    assert found.draws == EXPLAINED_DRAWS
    sharpness = found.heads.set_index("address")["sharpness"]
    again = head_effects(
        model,
        SUITE,
        sharpness,
        per_configuration=EXPLAINED_WINDOWS,
        shares=EXPLAINED_SHARES,
        draws=EXPLAINED_DRAWS,
    )
    pd.testing.assert_frame_equal(found.effects, again.sets)
    assert (f"{model.name}: induction", found.skipped[0][1]) in result.skipped  # too short a context
    assert result.manifest["arguments"]["explain"] is True  # type: ignore[index]
    table = results_table(result)
    own = (table["experiment"] == "explain_effects") & (table["model"] == model.name)
    rows = table[own].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows[found.effects.columns], found.effects, check_dtype=False)
    assert set(table["model"]) == {*(studied.name for studied in result.models), "all"}


def test_what_cannot_be_explained_is_skipped() -> None:
    model = tiny("tiny-timesfm")
    empty = Suite("empty", ())
    found, skipped = explained(model, empty, 0)
    assert found is None
    assert [what for what, _ in skipped] == [f"{model.name}: explanation"]


def test_two_of_them_are_in_one_report(result: Study, tmp_path: Path) -> None:
    write_results(result, tmp_path)
    kept = pd.read_parquet(tmp_path / "results.parquet")
    assert (kept["experiment"] == "explain_mechanism").sum() == 2 * 9
    page = render_report(result)
    assert "Do sharp heads copy?" in page
    for number, one in enumerate(result.models):
        assert one.explanation is not None
        assert all(portrait.address in page for portrait in one.explanation.portraits)
        assert f'id="stream-{number}"' in page
        assert np.isfinite(one.explanation.residual["norm"]).all()
