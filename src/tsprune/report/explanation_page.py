"""The explanation of heads and layers: sections of a study's report, or a page of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.explain.carriers import carriers_sentence
from tsprune.explain.overview import EXPLANATION_TABLES as TABLES
from tsprune.explain.overview import Explanation
from tsprune.report import figures
from tsprune.report.roles import facts
from tsprune.report.section import Picture, Section, page, picture, pictures_in, words
from tsprune.report.tables import PageTable, of_models, page_table
from tsprune.report.words import drawn, percent
from tsprune.statistics import SEEDS
from tsprune.text import count

_CARRIERS = 5  # heads of each trait in the short table


def write_explanation(found: Explanation, path: Path) -> None:
    """Write the page of `found` to `path`, completely or not at all."""
    write_whole(Path(path), render_explanation(found).encode("utf-8"))


def render_explanation(found: Explanation) -> str:
    """The explanation of one model as a page of HTML."""
    skipped = pd.DataFrame(found.skipped, columns=["item", "reason"])
    return page(
        "explain.html.jinja",
        subject=found.model,
        headline=f"{explanation_headline(found)} {words('phrases', 'intervals')}",
        sections=sections_of(found),
        skipped=page_table("Skipped", skipped),
    )


def explanation_pictures(found: Explanation) -> list[Picture]:
    """All pictures of the page of one model."""
    return pictures_in(sections_of(found))


def sections_of(found: Explanation) -> list[Section]:
    """All sections of the page of one model."""
    return [*carried([found]), *compared([found]), *of_model("-0", found)]


def carried(explained: Sequence[Explanation]) -> list[Section]:
    """The heads that carry parroting and seasonality, model by model; nothing without effects."""
    ranked = {one.model: one.carriers for one in explained if len(one.carriers)}
    if not ranked:
        return []
    several = len(ranked) > 1
    sentences = [
        f"{name}: {carriers_sentence(table)}" if several else carriers_sentence(table)
        for name, table in ranked.items()
    ]
    whole = of_models(ranked.items()) if several else next(iter(ranked.values()))
    first = whole[whole["rank"] <= _CARRIERS]
    return [
        Section(
            "Which heads carry parroting, which seasonality?",
            tables=(
                page_table("The first heads of each trait", first, TABLES["carriers"]),
                page_table("All heads, ranked", whole, TABLES["carriers"]),
            ),
            leads=(words("carriers", "lead"),),
            points=tuple(sentences),
            brief="Traits",
        )
    ]


def explanation_headline(found: Explanation) -> str:
    """The data that the explanation rests on, and the verdicts on the third mechanism, in sentences."""
    if not len(found.mechanism):
        return f"{_measured_on(found)} No head was ablated."
    return f"{_measured_on(found)} The paper's third mechanism: {verdicts_of(found)}"


def verdicts_of(found: Explanation) -> str:
    """The verdicts on the third mechanism of one model, in a sentence."""
    rows = found.mechanism.drop_duplicates("claim")
    claims = ", ".join(f"{row.claim}: {row.verdict}" for row in rows.itertuples())
    return f"{found.model}: {claims}."


def _measured_on(found: Explanation) -> str:
    text = f"Measured on {count(found.windows, 'window')} of the suite {found.suite}, evenly spaced"
    if len(found.effects) and found.forecast_windows < found.windows:
        text += f"; ablated forecasts on {found.forecast_windows} of them"
    return text + (f" ({drawn(found.samples)} per window)." if found.samples is not None else ".")


def compared(explained: Sequence[Explanation]) -> list[Section]:
    """The claims about sharp and diffuse heads, model by model, on real and on chaotic series."""
    in_sets = [one for one in explained if len(one.effects)]
    chaotic = [one for one in explained if len(one.chaos)]
    return [*([_in_sets(in_sets)] if in_sets else []), *([_chaotic(chaotic)] if chaotic else [])]


def _in_sets(explained: Sequence[Explanation]) -> Section:
    draws = " or ".join(f"{n}" for n in sorted({one.draws for one in explained}))
    windows = ", ".join(f"{one.model}: {count(one.forecast_windows, 'window')}" for one in explained)
    values = {"draws": draws, "windows": windows}
    by_share = pd.concat([one.by_share for one in explained])
    effects = of_models((one.model, one.effects) for one in explained)
    tables = (
        _claims("Does mechanism 3 hold?", [one.mechanism for one in explained]),
        page_table("The same by share of heads ablated", by_share, TABLES["by_share"]),
        page_table("Effect of every set of heads", effects, TABLES["effects"]),
    )
    return Section(
        "Do sharp heads copy?",
        (picture("mechanism", figures.mechanism_curves, explained, values=values),),
        tables,
        leads=(words("mechanism", "lead", seeds=SEEDS),),
        points=tuple(verdicts_of(one) for one in explained),
        brief="Mechanism",
    )


def _claims(title: str, tables: Sequence[pd.DataFrame]) -> PageTable:
    """The rows of several `mechanism_table`; model, claim and verdict at the first statement of a claim."""
    whole = pd.concat(tables, ignore_index=True)
    shown = whole[["model", "claim", "verdict", "statement", "value", "low", "high", "units", "note"]].copy()
    shown.loc[whole.duplicated(["model", "claim"]), ["model", "claim", "verdict", "note"]] = ""
    return page_table(title, shown, TABLES["mechanism"])


def _chaotic(explained: Sequence[Explanation]) -> Section:
    baselines = pd.concat([_beside_baselines(one) for one in explained])
    tables = [page_table("The model and copy-only baselines", baselines)]
    judged = [one.chaos_mechanism for one in explained if len(one.chaos_mechanism)]
    lead = words("chaos", "lead")
    if judged:
        lead += f" {words('chaos', 'claims')}"
        tables.append(_claims("Mechanism 3 on chaotic trajectories", judged))
    measures = of_models((one.model, one.chaos) for one in explained)
    tables.append(page_table("All measures", measures, TABLES["chaos"]))
    return Section("On chaotic trajectories", (), tuple(tables), leads=(lead,), brief="Chaos")


def _beside_baselines(one: Explanation) -> pd.DataFrame:
    rows: dict[str, dict[str, str]] = {}
    for row in one.chaos.to_dict("records"):
        sign = "" if row["measure"] == "error" else "+"
        text = f"{row['mean']:{sign}.3f} [{row['low']:{sign}.3f}, {row['high']:{sign}.3f}]"
        if row["difference"] == row["difference"]:
            text += f" ({row['difference']:+.3f})"
        columns = rows.setdefault(row["forecaster"], {"model": one.model, "forecaster": row["forecaster"]})
        columns[row["measure"].replace("_", " ")] = text
    return pd.DataFrame(rows.values())


def of_model(number: str, found: Explanation) -> list[Section]:
    """Selected heads, the residual stream and the attribution of the forecast of one model.

    number : ends the keys of its figures
    """
    lead = (
        f"{_measured_on(found)} The heads below are extremes of {count(len(found.heads), 'head')}. "
        "An extreme of many is partly luck, which its own interval ignores: compare it with its null."
    )
    pictures, tables = tuple(_pictures(number, found)), tuple(_tables(found))
    return [Section(f"Why: {found.model}", pictures, tables, leads=(lead,))]


def _tables(found: Explanation) -> Iterator[PageTable]:
    heads, induced = found.heads, found.induction
    # ascending order of the change of parroting; empty if no head was ablated
    columns = ["address", "parroting", "parroting_low", "parroting_high"]
    columns += [name for name in ("mase", "sharpness", "followed_score") if name in heads]
    ranked = heads.iloc[:0]
    if "parroting" in heads:
        ranked = heads.dropna(subset=["parroting"]).sort_values("parroting", kind="stable")[columns]
    if len(induced):  # with the interval of the score that is drawn
        scores = ["occurrence_score", "followed_score", "followed_score_low", "followed_score_high"]
        induced = induced[["address", "block", "repeats", *scores]]
    hidden = [name for name in heads if name.endswith(("_low", "_high", "_p_holm"))]
    tables = {
        "Correlates of head effects (Spearman's rho over heads)": ("correlations", found.correlations),
        "Stable rank and kernel bandwidth (Spearman's rho over heads)": ("kernel", found.kernel),
        "Induction and parroting (Spearman's rho over heads)": ("induction_effects", found.induction_effects),
        "Heads by their effect on parroting": ("heads", ranked),
        "Induction by length and count of the repetition": ("induction", induced),
        "All heads, explained": (
            "heads",
            heads.drop(columns=[*hidden, "stack", "layer", "attention", "head"]),
        ),
        "Residual stream": ("residual", found.residual),
        "Lens: the forecast read out at each layer": ("lens", found.lens),
        "Similarity of layers": ("cka", found.cka),
        "Attribution of the forecast": ("attribution", found.attribution),
    }
    for title, (name, frame) in tables.items():
        yield page_table(title, frame, TABLES[name])


def _pictures(number: str, found: Explanation) -> Iterator[Picture]:
    yield picture("attended", figures.attended_maps, found, number=number, folded=True)
    yield picture("kernel", figures.kernel_points, found, number=number, folded=True)
    if len(found.induction):
        yield picture("induction", figures.induction_curves, found, number=number, folded=True)
    if "parroting" in found.heads:
        yield picture("ranked", figures.parroting_ranked, found, number=number, folded=True)
    rows, profile = found.heads.set_index("address"), found.profile
    for place, one in enumerate(found.portraits):
        own = profile[profile["address"] == one.address] if len(profile) else profile
        values = {"address": one.address, "reasons": " and ".join(one.reasons)}
        look: dict[str, Any] = {"facts": facts(rows.loc[one.address].to_dict()), "values": values}
        yield picture(
            "head", figures.head_portrait, one, own, number=f"{number}-{place}", folded=True, **look
        )
    check: tuple[str, ...] = ()
    if len(found.guard):
        guard = found.guard
        changes = {
            "least": guard["other"].min(),
            "most": guard["other"].max(),
            "itself": guard["itself"].max(),
        }
        texts = {name: percent(float(value), signed=False) for name, value in changes.items()}
        check = (words("stream", "check", **texts),)
    yield picture("stream", figures.residual_stream, found, number=number, folded=True, facts=check)
    yield picture("similarity", figures.layer_similarity, found, number=number, folded=True)
    stacks = found.residual["stack"].nunique() if len(found.residual) else 0
    values = {"encoder": words("parts", "encoder") if stacks > 1 else ""}
    yield picture("parts", figures.forecast_parts, found, number=number, folded=True, values=values)
