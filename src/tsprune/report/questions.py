"""The section on questions that the paper leaves open."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tsprune.report import figures
from tsprune.report.digest import HEADLINE, heads_at_totals, mlp_summary
from tsprune.report.section import Section, picture
from tsprune.report.tables import page_table
from tsprune.report.words import between, count, percent
from tsprune.studies.study_result import TABLES, ModelStudy, Study


def answered(study: Study) -> Section:
    """One section for all models of a study."""
    facts = tuple(fact for model in study.models for fact in svd_facts(model))
    values = {"windows": _windows(study), "percent": study.percent}
    strategies = ("high-to-low", "svd-low-to-high", "svd-high-to-low")
    look: dict[str, Any] = {"facts": facts, "strategies": strategies}
    pictures = (
        picture("heads-at-compared", figures.heads_at_compared, study, values=values),
        picture("svd-pruning", figures.pruning_curves, study, values=values, **look),
        picture("mlps-compared", figures.mlp_sensitivity, study),
        picture("agreement", figures.score_agreement, study, values=values),
    )
    comparisons = _of_all(study, "comparisons")
    if len(comparisons):
        comparisons = comparisons[comparisons["versus"] != "unpruned"]
    svd, agreement = _of_all(study, "svd_correlation"), _of_all(study, "agreement")
    against = "Attention-SVD against stable rank, and both against random"
    tables = (
        page_table(f"heads@{study.percent:g}pp summed over layers", _totals(study)),
        page_table(against, comparisons, TABLES["comparisons"]),
        page_table("Correlation of both ranks", svd, TABLES["svd_correlation"]),
        page_table("Median change without one MLP, by architecture", mlp_summary(study)),
        page_table("Agreement of every score with the measured effect", agreement, TABLES["agreement"]),
    )
    return Section("Three open questions of the paper", pictures, tables)


def _windows(study: Study) -> str:
    numbers = sorted({model.score_windows for model in study.models if model.score_windows})
    if not numbers:
        return ""
    return f"Scores that need data use {' or '.join(map(str, numbers))} calibration windows."


def _of_all(study: Study, name: str) -> pd.DataFrame:
    """One table of all models, with the model in the first column."""
    parts = []
    for model in study.models:
        part: pd.DataFrame = getattr(model, name)
        if not part.empty:
            parts.append(part.assign(model=model.name)[["model", *part.columns]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _totals(study: Study) -> pd.DataFrame:
    parts = [heads_at_totals(model).assign(model=model.name) for model in study.models]
    names = {"calibration": "stay, chosen on calibration", "test": "stay, chosen on test"}
    frame = pd.concat(parts, ignore_index=True)
    return frame[["model", "stack", "attention", "heads", *names]].rename(columns=names)


def svd_facts(model: ModelStudy) -> list[str]:
    """The comparison of both rankings at the percentage nearest to 30, in a sentence."""
    rows = model.comparisons
    if rows.empty:
        return []
    rows = rows[(rows["versus"] == "high-to-low") & (rows["metric"] == HEADLINE)]
    rows = rows[rows["strategy"] == "svd-low-to-high"]
    if rows.empty:
        return [f"{model.name}: attention maps of its middle layers have no rank."]
    row = rows.loc[(rows["percent"] - 30).abs().idxmin()]
    value, low, high = (float(row[name]) for name in ("difference", "low", "high"))
    verdict = "no difference is shown"
    if high < 0:
        verdict = "attention maps choose better"
    elif low > 0:
        verdict = "stable rank chooses better"
    return [
        f"{model.name}, {int(row['percent'])} % of the middle layers' heads removed: {HEADLINE} with "
        f"attention maps (lowest rank first) relative to stable rank (highest first): {percent(value)} "
        f"[{between(low, high)}]; {verdict}.{_rank_correlation(model)}"
    ]


def _rank_correlation(model: ModelStudy) -> str:
    known = model.svd_correlation
    known = known.dropna(subset=["rho"]) if len(known) else known
    if known.empty:
        return ""
    parts = [
        f"{row['stack']}, {row['attention']}: {row['rho']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        for row in known.to_dict("records")
    ]
    return f" Rank correlation of the two over {count(int(sum(known['count'])), 'head')}: {', '.join(parts)}."
