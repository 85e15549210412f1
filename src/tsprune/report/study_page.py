"""The report of a study: one HTML file that holds everything it needs and opens without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.report import explanation_page, figures, questions
from tsprune.report.digest import HEADLINE, tally
from tsprune.report.section import Section, page, picture
from tsprune.report.tables import Table, page_table
from tsprune.report.words import drawn, model_findings, ratio_between, study_headline
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
            questions.answered(study),
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
