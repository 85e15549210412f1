"""Why the heads of a studied model matter: `tsprune explain` on few windows, for the study's report.

The study's own sweep has scores of every head over all windows, but parroting and seasonality need the
forecasts themselves; so these, and what attention and the residual stream do, are looked at on an evenly
spread part of the windows, and on chaotic trajectories.
"""

from __future__ import annotations

from tsprune.data.chaos import chaos
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.explain.overview import Explanation, overview
from tsprune.models.forecaster import Forecaster

WINDOWS = 4  # of each configuration
PERCENTS = (10, 30, 50)
DRAWS = 3


def explained(model: Forecaster, suite: Suite, seed: int) -> tuple[Explanation | None, list[tuple[str, str]]]:
    """The explanation, and (what, reason) of the parts that could not be had; None if nothing could."""
    try:
        found = overview(
            model,
            suite,
            per_configuration=WINDOWS,
            percents=PERCENTS,
            draws=DRAWS,
            trajectories=chaos(),
            seed=seed,
        )
    except TspruneError as error:
        return None, [(f"{model.name}: explanation", str(error))]
    return found, [(f"{model.name}: {part}", reason) for part, reason in found.skipped]
