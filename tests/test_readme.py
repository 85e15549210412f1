"""The README says what the study's files say, and these are what the package computes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

import tsprune

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "scripts" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_quotes_the_study(script: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = script.brief(pd.read_parquet(script.RESULTS), json.loads(script.MANIFEST.read_text()))
    assert script.with_account(readme, text) == readme


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_the_study_is_that_of_the_bundled_checkpoints(script: ModuleType) -> None:
    """Scores to the digits that the README prints; checkpoints and data to the last bit."""
    manifest = json.loads(script.MANIFEST.read_text())
    suite = tsprune.data.pocket()
    assert manifest["suite"]["fingerprint"] == suite.fingerprint
    model = tsprune.load("bundled:timesfm")
    found = tsprune.evaluation.geometric_mean_ratios(tsprune.evaluate(model, suite))
    for metric in ("MASE", "CRPS"):
        stated = manifest["scores"]["bundled:timesfm"][f"{metric}_ratio"][0]
        assert found[metric] == pytest.approx(stated, abs=5e-4)


def test_numbers_are_written_with_their_interval(script: ModuleType) -> None:
    assert script.change(0.163, 0.0109, 0.79) == "+16.3 % (+1 to +79)"
    assert script.name_of("Sharp heads carry parroting.") == "sharp heads carry parroting"
