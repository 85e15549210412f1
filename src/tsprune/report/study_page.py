"""The report of a study: one HTML file that holds everything it needs and opens without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.report import explanation_page, figures
from tsprune.report.digest import HEADLINE, heads_at_totals, mlp_summary, tally
from tsprune.report.section import Section, page, picture
from tsprune.report.tables import PageTable, of_models, page_table
from tsprune.report.words import (
    between,
    count,
    drawn,
    model_findings,
    percent,
    precision_of,
    ratio_between,
    study_headline,
)
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
            *_all_models(study),
            _questions(study),
            *explanation_page.carried(explained),
            *explanation_page.compared(explained),
            *(section for index, model in enumerate(study.models) for section in _of_model(index, model)),
        ],
        manifest=json.dumps(study.manifest, indent=2, default=str, ensure_ascii=False),
    )


def _summary(study: Study) -> PageTable:
    columns = {
        "model": [model.name for model in study.models],
        "family": [model.family for model in study.models],
        "parameters": [model.parameters for model in study.models],
        "forecasts": [drawn(model.samples) for model in study.models],
        "precision": [precision_of(model) for model in study.models],
        "MASE_ratio": [model.mase_ratio for model in study.models],
        "MASE_interval": [ratio_between(*model.mase_interval) for model in study.models],
        "CRPS_ratio": [model.crps_ratio for model in study.models],
        "CRPS_interval": [ratio_between(*model.crps_interval) for model in study.models],
    }
    tallies = [tally(study, model.name) for model in study.models]
    columns["claims"] = ["{} confirmed, {} refuted, {} undecided".format(*found) for found in tallies]
    return page_table("Models", pd.DataFrame(columns))


def _all_models(study: Study) -> Iterator[Section]:
    """Figures with several models in one panel, then figures with one panel or more per model."""
    if len(study.models) > 1:
        compared = picture("layers-compared", figures.layers_compared, study)
        yield Section("Models side by side", (compared,))
    values = {"percent": study.percent}
    drawn = (
        picture("layers", figures.layer_curves, study, values=values),
        picture("pruning", figures.pruning_curves, study),
        picture("heads-at", figures.heads_at_bars, study, values=values),
    )
    yield Section("All models", drawn)


def _of_model(index: int, model: ModelStudy) -> Iterator[Section]:
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
    yield Section(model.name, pictures, tuple(tables))
    if model.explanation is not None:
        yield from explanation_page.of_model(number, model.explanation)


def _questions(study: Study) -> Section:
    """Questions that the paper leaves open, for all models of a study."""
    facts = tuple(fact for model in study.models for fact in svd_facts(model))
    numbers = " or ".join(map(str, sorted({model.score_windows for model in study.models} - {0, None})))
    windows = f"Scores that need data use {numbers} calibration windows." if numbers else ""
    values = {"windows": windows, "percent": study.percent}
    strategies = ("high-to-low", "svd-low-to-high", "svd-high-to-low")
    look: dict[str, Any] = {"facts": facts, "strategies": strategies}
    pictures = (
        picture("heads-at-compared", figures.heads_at_compared, study, values=values),
        picture("svd-pruning", figures.pruning_curves, study, values=values, **look),
        picture("mlps-compared", figures.mlp_sensitivity, study),
        picture("agreement", figures.score_agreement, study, values=values),
    )
    comparisons, svd, agreement = (
        of_models((model.name, getattr(model, name)) for model in study.models)
        for name in ("comparisons", "svd_correlation", "agreement")
    )
    if len(comparisons):
        comparisons = comparisons[comparisons["versus"] != "unpruned"]
    against = "Attention-SVD against stable rank, and both against random"
    names = {"calibration": "stay, chosen on calibration", "test": "stay, chosen on test"}
    totals = of_models((model.name, heads_at_totals(model)) for model in study.models)
    totals = totals.reindex(columns=["model", "stack", "attention", "heads", *names]).rename(columns=names)
    tables = (
        page_table(f"heads@{study.percent:g}pp summed over layers", totals),
        page_table(against, comparisons, TABLES["comparisons"]),
        page_table("Correlation of both ranks", svd, TABLES["svd_correlation"]),
        page_table("Median change without one MLP, by architecture", mlp_summary(study)),
        page_table("Agreement of every score with the measured effect", agreement, TABLES["agreement"]),
    )
    return Section("Three open questions of the paper", pictures, tables)


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
    text = (
        f"{model.name}, {int(row['percent'])} % of the middle layers' heads removed: {HEADLINE} with "
        f"attention maps (lowest rank first) relative to stable rank (highest first): {percent(value)} "
        f"[{between(low, high)}]; {verdict}."
    )
    known = model.svd_correlation
    known = known.dropna(subset=["rho"]) if len(known) else known
    if len(known):
        parts = [
            f"{row['stack']}, {row['attention']}: {row['rho']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
            for row in known.to_dict("records")
        ]
        heads = count(int(sum(known["count"])), "head")
        text += f" Rank correlation of the two over {heads}: {', '.join(parts)}."
    return [text]
