"""The report: one HTML file that holds everything it needs and opens without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.report import explanation_page, figures, questions
from tsprune.report.digest import tally
from tsprune.report.section import Section, page, picture
from tsprune.report.tables import Table, table
from tsprune.report.words import about, drawn, headline, ratio_between
from tsprune.studies.study_result import ModelStudy, Study

_ABLATE = "Ablating means replacing a component's output by zero."
_CHANGE = (
    "Changes are relative changes of the geometric mean over configurations of the metric divided by "
    "Seasonal Naive's: +6 % is 6 % worse."
)
_BARS = "Bars are 95 % intervals over configurations (studentised bootstrap of log ratios)."
_AXIS = "The axis is linear close to zero and logarithmic beyond."


def write_report(study: Study, path: Path) -> None:
    """Write the page of `study` to `path`; complete, or not at all."""
    write_whole(Path(path), render(study).encode("utf-8"))


def render(study: Study) -> str:
    """The page of `study` as HTML."""
    return page(
        "report.html.jinja",
        study=study,
        headline=headline(study),
        findings=[sentences for model in study.models if (sentences := about(model))],
        summary=_summary(study),
        sections=[
            *_compared(study),
            _common(study),
            *questions.answered(study),
            *explanation_page.compared([m.explanation for m in study.models if m.explanation is not None]),
            *(section for i, model in enumerate(study.models) for section in _of_model(i, model)),
        ],
        manifest=json.dumps(study.manifest, indent=2, default=str, ensure_ascii=False),
    )


def _summary(study: Study) -> Table:
    """One row a model, the page's first table."""
    rows = []
    for model in study.models:
        good, bad, open_ = tally(study, model.name)
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
                "claims": f"{good} confirmed, {bad} refuted, {open_} undecided",
            }
        )
    return table("Models", pd.DataFrame(rows))


def _compared(study: Study) -> list[Section]:
    """Pictures in which models meet; none for a single model."""
    if len(study.models) < 2:
        return []
    section = Section(
        "Models side by side",
        (
            picture(
                "layers-compared",
                "Layers of all models, by depth",
                f"Every point ablates the attention heads, the MLP or both of one layer of one model. "
                "Depth is relative, so that models of unequal depth compare; encoders are dotted with open "
                f"markers, everything else is solid. {_ABLATE} {_CHANGE} {_AXIS}",
                lambda columns: figures.layers_compared(study, columns=columns),
            ),
        ),
    )
    return [section]


def _common(study: Study) -> Section:
    """Pictures that hold all models side by side."""
    at = f"heads@{study.percent:g}pp"
    return Section(
        "All models",
        (
            picture(
                "layers",
                "What each layer is worth",
                f"Each point ablates the attention heads, the MLP or both of one layer. {_ABLATE} {_CHANGE} "
                f"{_BARS} {_AXIS} The dotted line marks +{study.percent:g} %.",
                lambda columns: figures.layer_curves(study, columns=columns),
            ),
            picture(
                "pruning",
                "Removing heads from the middle layers",
                "Heads of the middle layers are ablated in order of their stable rank, from either end, or "
                "at random with the same counts per sublayer (geometric mean of the draws; bands: lowest to "
                f"highest draw, and one standard deviation). {_CHANGE} {_BARS} The bar of the random mean "
                "also knows that other draws could have been made. "
                "If stable rank tells which heads are redundant, its line lies below the random band; "
                "that it does is said of a strategy only if the interval of the difference leaves out 0 "
                "(table of comparisons).",
                lambda columns: figures.pruning_curves(study, columns=columns),
            ),
            picture(
                "heads-at",
                f"Heads that must stay ({at})",
                f"{at} of an attention sublayer: heads left after removing, in stable-rank order, as many as "
                f"keep the score within {study.percent:g} % of the intact model. Grey picks order and number "
                "on the very windows it reports, as the paper does; blue on held-out windows. Outlines are "
                "the heads there are: the lower a bar in its outline, the more redundant the sublayer.",
                lambda columns: figures.heads_at_bars(study, columns=columns),
            ),
        ),
    )


def _of_model(index: int, model: ModelStudy) -> list[Section]:
    """Pictures and tables of one model, and why they look as they do."""
    why = [] if model.explanation is None else explanation_page.of_model(str(index), model.explanation)
    return [_measured(index, model), *why]


def _measured(index: int, model: ModelStudy) -> Section:
    """Pictures and tables of what was measured on one model."""
    return Section(
        model.name,
        (
            picture(
                f"forecasts-{index}",
                "Forecasts before and after",
                "Windows of real series: the end of the history, what followed (strongest line), and the "
                "median and 10-90 % band of the forecast of the intact and of the ablated model.",
                lambda columns: figures.forecasts(model, columns=columns),
            ),
            picture(
                f"heads-{index}",
                "Every head: stable rank and effect",
                "Stable rank: the squared Frobenius norm of W_Q W_K^T over its squared spectral norm; low "
                "is a sharp, specialised head, high a diffuse one. 'effective' includes data-free factors "
                "of queries and keys. Beside it: change of CRPS when that head alone is ablated (orange: "
                "worse); a dot marks heads whose change differs from 0 after Holm's correction for all "
                "heads of the model.",
                lambda columns: figures.head_maps(model, columns=columns),
            ),
            picture(
                f"rank-{index}",
                "Does stable rank tell which heads matter?",
                "A point is a head: its stable rank against the change of CRPS when it alone is ablated. If "
                "diffuse heads are redundant, points fall to the right (negative Spearman correlation).",
                lambda columns: figures.rank_against_effect(model, columns=columns),
            ),
        ),
        (
            table("Baseline per configuration", model.baseline),
            table("Layer sweep", model.layers),
            table("Pruned models", model.pruning),
            table("Pruning strategies compared", model.comparisons),
            table("Heads that must stay", model.heads_at),
            table("Correlation of stable rank with ablation effect", model.rank_correlation),
            table("All heads", model.heads),
        ),
    )
