"""`rank`: the heads of a model ordered by a score."""

from __future__ import annotations

import pandas as pd

from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.scores.spectrum import SPECTRUM_SCORES, spectra
from tsprune.scores.stable_rank import stable_ranks

SCORES = ("stable_rank", "stable_rank_effective", *SPECTRUM_SCORES)


def rank(model: Forecaster, by: str = "stable_rank") -> pd.DataFrame:
    """Scores every attention head without data, one row a head in order of execution.

    by : "stable_rank" (the paper's: plain W_Q W_K^T) or "stable_rank_effective" (with q/k norm
        weights and per-dimension scales folded in), or another of `SCORES` (see `scores.spectrum`)

    Columns: address, stack, layer, attention, head, score, rank (1 is the highest score within the
    head's sublayer, the first to be pruned; ties share the lower number), and both stable ranks.

    Raises TspruneError for an unknown score.
    """
    if by not in SCORES:
        raise TspruneError(f"unknown score {by!r}; one of: {', '.join(SCORES)}")
    frame = stable_ranks(model)
    scored = spectra(model) if by in SPECTRUM_SCORES else frame
    frame.insert(5, "score", scored[by])
    within = frame.groupby(["stack", "layer", "attention"])["score"]
    # a zero head has no stable rank (NaN); it is last, and so never called redundant by this score
    frame.insert(6, "rank", within.rank(ascending=False, method="min", na_option="bottom").astype(int))
    return frame
