"""The section that answers what the paper's authors left open."""

from __future__ import annotations

import pandas as pd

from tsprune.report import figures
from tsprune.report.digest import heads_at_totals, mlp_summary
from tsprune.report.section import Section, picture
from tsprune.report.tables import table
from tsprune.report.words import count
from tsprune.studies.study_result import ModelStudy, Study

_BARS = "Bars are 95 % intervals."
SVD_STRATEGIES = ("high-to-low", "svd-low-to-high", "svd-high-to-low")


def answered(study: Study) -> list[Section]:
    """One section for all models of a study."""
    at = f"heads@{study.percent:g}pp"
    section = Section(
        "Three questions of the paper's authors",
        (
            picture(
                "heads-at-compared",
                f"1. How many heads does each layer need? {at}, layer by layer",
                "Heads of the layer that must stay, of how many there are, for a loss of at most "
                f"{study.percent:g} %; the paler a cell, the more redundant the layer's heads. Chosen on "
                "calibration series and true on others, or chosen on the test windows as in the paper; the "
                "interval of the latter's change does not know that the best was picked.",
                lambda columns: figures.heads_at_compared(study, columns=columns),
            ),
            picture(
                "svd-pruning",
                "2. Does the rank of the actual attention maps choose better than that of the weights?",
                "Stable rank of W_Q W_K^T against the stable rank of attention maps on windows (their SVD), "
                "from either end, with the same counts per sublayer, before the same random null. "
                f"{_windows(study)} A sublayer whose maps have a single query (the decoder of a model that "
                "forecasts in one step) has no such rank; there, both rankings take the same heads. "
                f"{_BARS}",
                lambda columns: figures.pruning_curves(study, columns=columns, strategies=SVD_STRATEGIES),
                facts=tuple(fact for model in study.models for fact in _svd_facts(model)),
            ),
            picture(
                "mlps-compared",
                "3. What is one MLP worth, by architecture?",
                "A point is one MLP ablated alone, in order of layers from top to bottom; the upright line "
                "is the median of its row. The paper says that encoder-decoder models tolerate it and "
                f"decoder-only models do not. {_BARS} The axis is linear close to zero and logarithmic "
                "beyond.",
                lambda columns: figures.mlp_sensitivity(study, columns=columns),
            ),
            picture(
                "agreement",
                "Which score tells what an ablation does?",
                "Spearman correlation of each score with the exact effect of ablating single heads or "
                "MLPs, its sign turned so that right of 0 the score is right about which end is redundant. "
                "Scores are of calibration series, effects of the others; the exact effect of the "
                "calibration series says what could be reached. Bars: 95 %, bootstrap over components. "
                f"Filled: not by chance after Holm's correction for all scores. {_windows(study)}",
                lambda columns: figures.score_agreement(study, columns=columns),
            ),
        ),
        tuple(
            one
            for one in (
                table(f"{at} summed over layers", _totals(study)),
                table("Attention-SVD against stable rank, and both against random", _comparisons(study)),
                table("Correlation of both ranks", _of_all(study, "svd_correlation")),
                table("Median change without one MLP, by architecture", mlp_summary(study)),
                table("Agreement of every score with the exact effect", _of_all(study, "agreement")),
            )
            if one.rows
        ),
    )
    return [section]


def _windows(study: Study) -> str:
    numbers = sorted({model.score_windows for model in study.models if model.score_windows})
    if not numbers:
        return ""
    return f"Scores that need data look at {' or '.join(map(str, numbers))} calibration windows."


def _of_all(study: Study, name: str) -> pd.DataFrame:
    """One table of all models below each other, the model in front."""
    parts = []
    for model in study.models:
        part: pd.DataFrame = getattr(model, name)
        if not part.empty:
            parts.append(part.assign(model=model.name)[["model", *part.columns]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _totals(study: Study) -> pd.DataFrame:
    parts = [heads_at_totals(model).assign(model=model.name) for model in study.models]
    frame = pd.concat(parts, ignore_index=True)
    names = {"calibration": "stay, chosen on calibration", "test": "stay, chosen on test"}
    return frame[["model", "stack", "attention", "heads", *names]].rename(columns=names)


def _comparisons(study: Study) -> pd.DataFrame:
    frame = _of_all(study, "comparisons")
    return frame if frame.empty else frame[frame["versus"] != "unpruned"]


def _svd_facts(model: ModelStudy) -> list[str]:
    """What the intervals say at the percentage nearest to 30, in one sentence a model."""
    rows = model.comparisons
    if rows.empty:
        return []
    rows = rows[(rows["versus"] == "high-to-low") & (rows["metric"] == "CRPS")]
    rows = rows[rows["strategy"] == "svd-low-to-high"]
    if rows.empty:
        return [f"{model.name}: its middle layers have no attention maps with a rank."]
    distance = (rows["percent"] - 30).abs()
    row = rows[distance == distance.min()].iloc[0]
    value, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
    verdict = "no difference is shown"
    if high < 0:
        verdict = "attention maps choose better"
    elif low > 0:
        verdict = "stable rank chooses better"
    return [
        f"{model.name}: at {int(row['percent'])} % of the middle layers' heads, CRPS by attention maps "
        f"(lowest rank first) relative to stable rank (highest first) is {value:+.2f} % "
        f"[{low:+.2f}, {high:+.2f}]: {verdict}{_alike(model)}."
    ]


def _alike(model: ModelStudy) -> str:
    if model.svd_correlation.empty:
        return ""
    known = model.svd_correlation.dropna(subset=["rho"])
    if known.empty:
        return ""
    parts = [
        f"{row['stack']}, {row['attention']}: {row['rho']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        for row in known.to_dict("records")
    ]
    return f"; rank correlation of the two over {count(int(sum(known['count'])), 'head')}: {', '.join(parts)}"
