"""The report of a study: one HTML file that holds everything it needs and opens without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.frontiers import FRONTIER, Frontier
from tsprune.glossary import glossary
from tsprune.report import explanation_page, figures
from tsprune.report.answer import (
    NOTE,
    PAPER,
    PAPER_ADDRESS,
    PAPER_AUTHORS,
    PAPER_LABEL,
    answers,
    studied,
    sure,
)
from tsprune.report.digest import HEADLINE, heads_at_totals, mlp_summary, tally
from tsprune.report.figures.frontier_figure import time_against_loss
from tsprune.report.section import CitedWork, ModelClaims, Picture, Section, page, picture, pictures_in, words
from tsprune.report.tables import of_models, page_table
from tsprune.report.words import (
    between,
    claims_headline,
    drawn,
    layer_finding,
    percent,
    precision_of,
    pruning_finding,
    ratio_between,
)
from tsprune.studies.study_result import TABLES, ModelStudy, Study
from tsprune.text import count

_ALL = "all"  # the model of claims about all models together
# terms of the paper that its claims need
_PAPERS_WORDS = ("stable-rank", "sharpness", "stack", "heads-at", "parroting", "seasonality-bias")


Frontiers = Mapping[str, Frontier]  # by the name of the model


def write_report(study: Study, path: Path, frontiers: Frontiers = MappingProxyType({})) -> None:
    """Write the page of `study` to `path`, completely or not at all.

    frontiers : of its models, as far as they were measured
    """
    html = render_report(study, Path(path).parent, frontiers)
    write_whole(Path(path), html.encode("utf-8"))


def render_report(
    study: Study, folder: Path = Path("study"), frontiers: Frontiers = MappingProxyType({})
) -> str:
    """The page of `study` as HTML.

    folder : the page and the study's plans are in it; the commands on the page name it
    """
    skipped = pd.DataFrame(study.skipped, columns=["item", "reason"])
    seconds = [round(model.seconds) for model in study.models]
    checkpoints = {
        "checkpoint": [model.name for model in study.models],
        "SHA-256": [model.sha256 for model in study.models],
        "seconds": seconds,
    }
    return page(
        "report.html.jinja",
        study=study,
        subject=", ".join(model.name for model in study.models),
        studied=studied(study),
        answers=answers(study, folder),
        note=NOTE,
        sure=sure(study),
        picture=first_picture(study),
        sections=sections(study, frontiers),
        skipped=page_table("Skipped", skipped),
        checkpoints=page_table("Checkpoints", pd.DataFrame(checkpoints)),
        manifest=json.dumps(study.manifest, indent=2, default=str, ensure_ascii=False),
    )


def first_picture(study: Study) -> Picture:
    """The loss against the time that is saved: the picture of the first screen."""
    return picture("removals", figures.removal_curves, study)


def study_pictures(study: Study, frontiers: Frontiers = MappingProxyType({})) -> list[Picture]:
    """All pictures of the page, that of the first screen first."""
    return [first_picture(study), *pictures_in(sections(study, frontiers))]


def sections(study: Study, frontiers: Frontiers = MappingProxyType({})) -> list[Section]:
    """Everything below the first screen, without what all pages have."""
    explained = [model.explanation for model in study.models if model.explanation is not None]
    return [
        *([_deployed(frontiers)] if frontiers else []),
        _layers(study),
        _heads(study),
        *explanation_page.carried(explained),
        *explanation_page.compared(explained),
        _choosing(study),
        _claims(study),
        *(section for index, model in enumerate(study.models) for section in _of_model(index, model)),
        _methods(study),
    ]


def _deployed(frontiers: Frontiers) -> Section:
    """Time against loss of each model as it is, without what the study would remove, and exported."""
    points = of_models((name, one.frame) for name, one in frontiers.items())
    one = next(iter(frontiers.values()))
    drawn = points if len(frontiers) > 1 else points.drop(columns="model")
    values = {"machine": one.machine}
    return Section(
        "What should be deployed?",
        (picture("frontier", time_against_loss, drawn, metric=one.metric, values=values),),
        (page_table("Ways to deploy each model", points, FRONTIER),),
        leads=(words("frontier", "lead"),),
        points=tuple(f"{name}: {one.headline}" for name, one in frontiers.items()),
        brief="Deployment",
    )


def _layers(study: Study) -> Section:
    values = {"percent": study.percent}
    several = len(study.models) > 1
    compared = (picture("layers-compared", figures.layers_compared, study, folded=True),) if several else ()
    pictures = (
        picture("layers", figures.layer_curves, study, values=values),
        *compared,
        picture("mlps-compared", figures.mlp_sensitivity, study),
    )
    tables = (
        page_table("Layer sweep", _of_all(study, "layers"), TABLES["layers"]),
        page_table("Median change without one MLP, by architecture", mlp_summary(study)),
    )
    points = tuple(text for model in study.models if (text := layer_finding(model)))
    return Section("What is each layer worth?", pictures, tables, points=points, brief="Layers")


def _heads(study: Study) -> Section:
    values = {"percent": study.percent}
    pictures = (
        picture("heads-at", figures.heads_at_bars, study, values=values),
        picture("heads-at-compared", figures.heads_at_compared, study, values=values, folded=True),
    )
    names = {"calibration": "stay, chosen on calibration", "test": "stay, chosen on test"}
    totals = of_models((model.name, heads_at_totals(model)) for model in study.models)
    totals = totals.reindex(columns=["model", "stack", "attention", "heads", *names]).rename(columns=names)
    tables = (
        page_table(f"heads@{study.percent:g}pp summed over layers", totals),
        page_table("Heads that must stay", _of_all(study, "heads_at"), TABLES["heads_at"]),
    )
    return Section("How many heads does each layer need?", pictures, tables, brief="Heads")


def _choosing(study: Study) -> Section:
    """Sets of heads and MLPs, and the ways to choose them."""
    numbers = " or ".join(map(str, sorted({model.score_windows for model in study.models} - {0, None})))
    windows = f"Scores that need data use {numbers} calibration windows." if numbers else ""
    values = {"windows": windows, "percent": study.percent}
    strategies = ("high-to-low", "svd-low-to-high", "svd-high-to-low")
    pictures = (
        picture("pruning", figures.pruning_curves, study),
        picture(
            "svd-pruning", figures.pruning_curves, study, values=values, strategies=strategies, folded=True
        ),
        picture("agreement", figures.score_agreement, study, values=values),
    )
    tables = (
        page_table("Growing sets of heads and MLPs", _of_all(study, "removals"), TABLES["removals"]),
        page_table("Pruned models", _of_all(study, "pruning"), TABLES["pruning"]),
        page_table("Pruning strategies compared", _of_all(study, "comparisons"), TABLES["comparisons"]),
        page_table("Correlation of both ranks", _of_all(study, "svd_correlation"), TABLES["svd_correlation"]),
        page_table(
            "Agreement of every score with the measured effect",
            _of_all(study, "agreement"),
            TABLES["agreement"],
        ),
    )
    points = [text for model in study.models if (text := pruning_finding(model))]
    points += [fact for model in study.models for fact in svd_facts(model)]
    heading = "How should heads be chosen?"
    return Section(heading, pictures, tables, points=tuple(points), brief="Choosing")


def _of_all(study: Study, name: str) -> pd.DataFrame:
    """One table of all models, the model's name in the first column."""
    return of_models((model.name, getattr(model, name)) for model in study.models)


def _claims(study: Study) -> Section:
    about = dict.fromkeys(claim.model for claim in study.claims)
    groups = tuple(
        ModelClaims("All models" if name == _ALL else name, tuple(c for c in study.claims if c.model == name))
        for name in about
    )
    columns = ["model", "claim", "verdict", "measured here"]
    rows = [(claim.model, claim.statement, claim.verdict, claim.evidence) for claim in study.claims]
    evidence = page_table("The numbers behind each verdict", pd.DataFrame(rows, columns=columns))
    leads = (claims_headline(study), words("claims", "lead"))
    return Section(
        "Do the paper's claims hold here?",
        tables=(evidence,),
        leads=leads if study.claims else ("No claim was tested.",),
        brief="Claims",
        source=CitedWork(f"{PAPER_AUTHORS}, {PAPER}", PAPER_LABEL, PAPER_ADDRESS),
        words=tuple(glossary()[key] for key in _PAPERS_WORDS),
        judged=groups,
    )


def _methods(study: Study) -> Section:
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
    tables = (
        page_table("Models", pd.DataFrame(columns)),
        page_table("Baseline per configuration", _of_all(study, "baseline"), TABLES["baseline"]),
    )
    notes = tuple(f"{note}." for model in study.models for note in model.notes)
    return Section(
        "How was it measured?",
        tables=tables,
        leads=(words("methods", "data"), words("methods", "tests")),
        points=notes,
        brief="Methods",
    )


def _of_model(index: int, model: ModelStudy) -> Iterator[Section]:
    number, values = f"-{index}", {"headline": HEADLINE}
    pictures = (
        picture("forecasts", figures.forecasts, model, number=number),
        picture("heads", figures.head_maps, model, number=number, values=values),
        picture("rank", figures.rank_against_effect, model, number=number, values=values),
    )
    titles = {"rank_correlation": "Correlation of stable rank with ablation effect", "heads": "All heads"}
    tables = (page_table(title, getattr(model, name), TABLES[name]) for name, title in titles.items())
    yield Section(f"{model.name} in detail", pictures, tuple(tables), brief=model.name)
    if model.explanation is not None:
        yield from explanation_page.of_model(number, model.explanation)


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
