"""Scores of heads and MLPs in a study, and their agreement with the exact effects of ablations.

Scores that need windows are computed on a few calibration windows, before the sweep. The exact effects they
are compared with come from the sweep on the other series, so they share no noise. The exact effect on the
calibration series is among the scores: an upper bound for the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from tsprune.anatomy import DESCRIPTION, Kind
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import sampled
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import RunOptions
from tsprune.scores import agreement_table, available_scores, score_table
from tsprune.scores.activations import measure_activations
from tsprune.scores.effects import EFFECT_SCORES, measure_effects
from tsprune.scores.weight_scores import measure_weights
from tsprune.statistics import correlation_row, holm
from tsprune.studies.experiments import StudyPlan
from tsprune.studies.study_result import AGREEMENT, SVD_CORRELATION
from tsprune.sweeps.kept_tables import KeptTables
from tsprune.sweeps.single_components import effects_frame
from tsprune.sweeps.sweep_result import Masks, SweepResult

_PER_CONFIGURATION = 8  # few, as a study measures all scores; the report gives their number
_MAPS = "attention_stable_rank"
SCORING_PASSES = 6.0  # times that a clean pass of the windows takes, gradients included
_KINDS: tuple[Kind, ...] = ("head", "mlp")


@dataclasses.dataclass(frozen=True)
class StudyScores:
    """Scores of every head and MLP.

    table : as `tsprune.scores.score_table` returns it
    windows : calibration windows that scores of data were computed on
    skipped : (scores, reason) of scores that the model does not have
    """

    table: pd.DataFrame
    windows: int
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def heads(self) -> pd.DataFrame:
        return self.table[self.table["kind"] == "head"]

    def by_maps(self, ranking: pd.DataFrame) -> pd.DataFrame | None:
        """A table of `tsprune.rank` with heads scored by the stable rank of their attention maps.

        None if no head has one, as maps of a single query.
        """
        if _MAPS not in self.table or self.heads[_MAPS].isna().all():
            return None
        scores = self.heads.set_index("address")[_MAPS]
        return ranking.assign(score=ranking["address"].map(scores))


def scored_windows(
    model: Forecaster, suite: Suite, seed: int, per_configuration: int = _PER_CONFIGURATION
) -> Suite:
    """The calibration windows that scores of data are computed on."""
    calibration, _ = split(suite, fraction=CALIBRATION_FRACTION, seed=seed)
    return sampled(calibration, model, per_configuration)


def measure_scores(
    model: Forecaster, suite: Suite, options: RunOptions, per_configuration: int = _PER_CONFIGURATION
) -> StudyScores:
    """All scores of a model except the exact effects, which the sweep measures.

    per_configuration : calibration windows for scores of data; 0 leaves those out
    """
    few = scored_windows(model, suite, options.seed, per_configuration) if per_configuration else None
    windows = few if few is not None and len(few) else None
    kinds = tuple(kind for kind in _KINDS if model.anatomy.components(kind))
    families: dict[Callable[..., object], list[str]] = {}
    for score in available_scores(model, windows, kinds):
        families.setdefault(score.measure, []).append(score.name)
    families.pop(measure_effects, None)

    kept = KeptTables(options.store, model, options)

    def scored(names: Sequence[str]) -> pd.DataFrame:
        def made() -> dict[str, pd.DataFrame]:
            return {"scores": score_table(model, windows, by=names, kinds=kinds, **options.keywords())}

        return kept.get("scores", made, windows, scores=list(names), kinds=list(kinds))["scores"]

    table = scored([name for one in (measure_weights, measure_activations) for name in families.pop(one, [])])
    skipped: list[tuple[str, str]] = []
    for names in families.values():
        try:
            table = table.merge(scored(names), on=list(DESCRIPTION), validate="one_to_one")
        except TspruneError as error:  # such as frozen parameters, which have no gradient
            skipped.append((f"{model.name}: scores {', '.join(names)}", str(error)))
    return StudyScores(table, 0 if few is None else len(few), tuple(skipped))


def agreement_with_effects(
    scores: StudyScores, result: SweepResult, wanted: StudyPlan, calibration: Masks
) -> pd.DataFrame:
    """The table `ModelStudy.agreement`."""
    ablations = dict(wanted.heads) | wanted.mlps
    names = ["address", *(score.name for score in EFFECT_SCORES)]
    on_calibration = effects_frame(result, ablations, calibration)[names]
    on_report = effects_frame(result, ablations, {name: ~mask for name, mask in calibration.items()})
    table = agreement_table(
        scores.table.merge(on_calibration, on="address", validate="one_to_one"), on_report
    )
    corrected = table.groupby(["kind", "group", "metric"], sort=False)["p_value"].transform(holm)
    return AGREEMENT.checked(table.assign(p_holm=corrected))


def svd_correlation(scores: StudyScores) -> pd.DataFrame:
    """The table `ModelStudy.svd_correlation`: agreement of both rankings of heads."""
    rows = []
    if _MAPS in scores.table:
        for (stack, attention), heads in scores.heads.groupby(["stack", "attention"], sort=False):
            plain, maps = (heads[name].to_numpy(np.float64) for name in ("stable_rank", _MAPS))
            rows.append({"stack": stack, "attention": attention, **correlation_row(plain, maps)})
    return SVD_CORRELATION.frame(rows)
