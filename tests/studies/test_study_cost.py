"""The cost of a study that is named before it begins."""

from __future__ import annotations

import pytest

from tests.suites import configuration, tiny
from tests.sweeping import Counting
from tsprune.data import Suite
from tsprune.studies.study_cost import LARGE, large_study_seconds, study_cost
from tsprune.studies.study_settings import StudySettings

SETTINGS = StudySettings(Suite("one", (configuration("a/D/short", [40] * 4, horizon=5),)), explain=False)


def test_a_large_models_study_says_what_it_will_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages together, if the model has more parameters than the threshold."""
    model = tiny("tiny-timesfm")
    stages = study_cost(
        model, SETTINGS
    )  # timed once: other work on the machine changes what a second timing finds
    assert all(one.seconds > 0 for one in stages)
    monkeypatch.setattr("tsprune.studies.study_cost.study_cost", lambda *_: stages)
    found = large_study_seconds(model, SETTINGS, least=model.parameter_count - 1)
    assert found == sum(one.seconds for one in stages)


def test_a_small_models_study_begins_at_once() -> None:
    model = Counting(tiny("tiny-timesfm"))
    assert large_study_seconds(model, SETTINGS) is None
    assert large_study_seconds(model, SETTINGS, least=model.parameter_count) is None
    assert model.calls == 0
    assert LARGE == 50_000_000
