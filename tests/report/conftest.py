"""The study that most tests of the report draw."""

from __future__ import annotations

import pytest
from handmade_study import ENCODER_DECODER, make_model, make_study

from tests.browsing import browser as browser
from tsprune.studies.study_result import Study


@pytest.fixture(scope="session")
def study() -> Study:
    """Two models: an encoder-decoder and a single stack."""
    return make_study(
        make_model("bolt-pocket", stacks=ENCODER_DECODER, layers=4, heads=4, seed=1),
        make_model("timesfm-pocket", layers=6, heads=8, seed=2),
        skipped=(("solar/10T/long", "the file is missing"),),
    )
