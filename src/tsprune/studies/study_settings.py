"""What all models of a study have in common: data, samples, device, precision and budget."""

from __future__ import annotations

import dataclasses
import functools

from tsprune.data.split import CALIBRATION_FRACTION
from tsprune.data.suite import Suite
from tsprune.models import load
from tsprune.models.forecaster import Forecaster, drawing
from tsprune.pruning.heads_at import calibration_masks
from tsprune.run_options import RunOptions
from tsprune.sweeps.sweep_result import Masks

# fewer paths than the 20 to 256 of a final score: a study forecasts every window hundreds of times, and its
# comparisons are paired, with the same draws with and without an ablation (`tsprune.models.draws`)
STUDY_SAMPLES = 8
# for models that decode a path value by value; odd, so that the median is a path's value
STUDY_STEPWISE_SAMPLES = 3
# of the explanation: windows of each configuration, shares of the heads that are ablated, random draws
EXPLAINED_WINDOWS, EXPLAINED_SHARES, EXPLAINED_DRAWS = 4, (0.1, 0.3, 0.5), 3


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Everything that all models of a study have in common; arguments as in `tsprune.study`."""

    suite: Suite
    max_loss: float = 0.01
    samples: int | None = None
    explain: bool = True
    device: str | None = None
    dtype: str | None = None
    options: RunOptions = dataclasses.field(default_factory=RunOptions)
    budget: float | None = None  # seconds for one model

    @functools.cached_property
    def calibration(self) -> Masks:
        """The windows that heads, MLPs and scores are chosen on."""
        return calibration_masks(self.suite, fraction=CALIBRATION_FRACTION, seed=self.options.seed)

    def loaded(self, name: str, dtype: str | None = None) -> Forecaster:
        """A model by name, as the study studies it, or in another precision."""
        return self.with_paths(load(name, device=self.device, dtype=dtype or self.dtype))

    def with_paths(self, model: Forecaster) -> Forecaster:
        """`model`, set to draw the paths of the study if it samples."""
        usual, stepwise = STUDY_SAMPLES, STUDY_STEPWISE_SAMPLES
        return drawing(model, self.samples, usual=usual, of_tokens=stepwise)
