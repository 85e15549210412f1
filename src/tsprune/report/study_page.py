"""The report of a study: one HTML file that holds everything it needs and opens without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.report import explanation_page, figures
from tsprune.report.digest import HEADLINE, heads_at_totals, mlp_summary, tally
from tsprune.report.section import Section, page, picture
from tsprune.report.tables import Table, page_table
from tsprune.report.words import between, count, drawn, model_findings, percent, ratio_between, study_headline
from tsprune.studies.study_result import TABLES, ModelStudy, Study


def write_report(study: Study, path: Path) -> None:
    """Write the page of `study` to `path`, completely or not at all."""
    write_whole(Path(path), render_report(study).encode("utf-8"))


def render_report(study: Study) -> str:
    """The page of `study` as HTML."""
    explained = [model.explanation for model in study.models if model.explanation is not None]
    return page(
        "report.html.jinja",
        study=study,
        subject=", ".join(model.name for model in study.models),
        headline=study_headline(study),
        findings=[sentences for model in study.models if (sentences := model_findings(model))],
        summary=_summary(study),
        sections=[
            *_compared(study),
            _common(study),
            _questions(study),
            *explanation_page.compared(explained),
            *(section for index, model in enumerate(study.models) for section in _of_model(index, model)),
        ],
        manifest=json.dumps(study.manifest, indent=2, default=str, ensure_ascii=False),
    )


def _summary(study: Study) -> Table:
    """The first table of the page, one row per model."""
    rows = []
    for model in study.models:
        confirmed, refuted, undecided = tally(study, model.name)
        rows.append(
            {
                "model": model.name,
                "family": model.family,
                "parameters": model.parameters,
                "forecasts": drawn(model.samples),
                "MASE_ratio": model.mase_ratio,
                "MASE_interval": ratio_between(*model.mase_interval),
                "CRPS_ratio": model.crps_ratio,
                "CRPS_interval": ratio_between(*model.crps_interval),
                "claims": f"{confirmed} confirmed, {refuted} refuted, {undecided} undecided",
            }
        )
    return page_table("Models", pd.DataFrame(rows))


def _compared(study: Study) -> list[Section]:
    """Figures with several models in one panel; none for a single model."""
    if len(study.models) < 2:
        return []
    return [Section("Models side by side", (picture("layers-compared", figures.layers_compared, study),))]


def _common(study: Study) -> Section:
    """Figures with one panel or more per model."""
    values = {"percent": study.percent}
    drawn = (
        picture("layers", figures.layer_curves, study, values=values),
        picture("pruning", figures.pruning_curves, study),
        picture("heads-at", figures.heads_at_bars, study, values=values),
    )
    return Section("All models", drawn)


def _of_model(index: int, model: ModelStudy) -> list[Section]:
    """Measurements on one model, and its explanation."""
    why = [] if model.explanation is None else explanation_page.of_model(f"-{index}", model.explanation)
    return [_measured(index, model), *why]


def _measured(index: int, model: ModelStudy) -> Section:
    number, values = f"-{index}", {"headline": HEADLINE}
    pictures = (
        picture("forecasts", figures.forecasts, model, number=number),
        picture("heads", figures.head_maps, model, number=number, values=values),
        picture("rank", figures.rank_against_effect, model, number=number, values=values),
    )
    titles = {
        "baseline": "Baseline per configuration",
        "layers": "Layer sweep",
        "pruning": "Pruned models",
        "comparisons": "Pruning strategies compared",
        "heads_at": "Heads that must stay",
        "rank_correlation": "Correlation of stable rank with ablation effect",
        "heads": "All heads",
    }
    tables = (page_table(title, getattr(model, name), TABLES[name]) for name, title in titles.items())
    return Section(model.name, pictures, tuple(tables))


def _questions(study: Study) -> Section:
    """Questions that the paper leaves open, for all models of a study."""
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
