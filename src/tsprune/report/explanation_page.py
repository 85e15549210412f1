"""Why heads and layers matter: sections of a study's report, or a page of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from tsprune.atomic import write_whole
from tsprune.explain.overview import Explanation
from tsprune.explain.portraits import Portrait
from tsprune.report import captions, figures
from tsprune.report.roles import facts
from tsprune.report.section import Picture, Section, page, picture
from tsprune.report.tables import Table, table
from tsprune.report.words import count, drawn, percent
from tsprune.statistics import SEEDS


def write_explanation(found: Explanation, path: Path) -> None:
    """Write the page of `found` to `path`; complete, or not at all."""
    write_whole(Path(path), render_explanation(found).encode("utf-8"))


def render_explanation(found: Explanation) -> str:
    """What is known of one model's heads and layers, as a page of HTML."""
    return page(
        "explain.html.jinja",
        model=found.model,
        headline=f"{about(found)} {captions.INTERVALS}",
        sections=[*compared([found]), *of_model("0", found)],
        skipped=found.skipped,
    )


def about(found: Explanation) -> str:
    """On what a model was explained, and whether the third mechanism was found, in sentences."""
    if not len(found.mechanism):
        return f"{_looked_at(found)} No head was ablated."
    rows = found.mechanism.drop_duplicates("claim")
    claims = ", ".join(f"{row.claim}: {row.verdict}" for row in rows.itertuples())
    return f"{_looked_at(found)} The paper's third mechanism: {claims}."


def _looked_at(found: Explanation) -> str:
    text = f"Looked at on {count(found.windows, 'window')} of the suite {found.suite}, evenly spread"
    if len(found.effects) and found.forecast_windows < found.windows:
        text += f"; forecast without heads on {found.forecast_windows} of them"
    return text + (f" ({drawn(found.samples)} a window)." if found.samples is not None else ".")


def compared(explained: Sequence[Explanation]) -> list[Section]:
    """Whether sharp heads copy and diffuse ones can go, model by model; also on chaotic trajectories."""
    return [
        *_in_sets([x for x in explained if len(x.effects)]),
        *_chaotic([x for x in explained if len(x.chaos)]),
    ]


def _in_sets(explained: Sequence[Explanation]) -> list[Section]:
    if not explained:
        return []
    draws = " or ".join(f"{n}" for n in sorted({one.draws for one in explained}))
    windows = ", ".join(f"{one.model}: {count(one.forecast_windows, 'window')}" for one in explained)
    curves = picture(
        "mechanism",
        "Without sharp, diffuse and random heads",
        "Of each attention sublayer the sharpest, the most diffuse, or random heads are ablated together, as "
        f"many of each. The grey band spans the means of {draws} random draws: a line inside it does what "
        f"any heads would. {captions.INTERVALS} Parroting: the correlation of the forecast with the most "
        "similar piece of its context (a forecast that is merely worse copies less, too: read the error "
        "beside it). "
        "Seasonality: the share of its power at the context's dominant period and "
        "harmonics, where the horizon holds a period. Axes with a wide range are linear close to zero and "
        f"logarithmic beyond. Evenly spread windows ({windows}).",
        lambda columns: figures.mechanism_curves(explained, columns=columns),
    )
    lead = (
        "The paper's third mechanism: sharp heads drive context parroting and seasonality, diffuse heads "
        "smooth and can go. Sharpness is measured on attention over these windows; stable rank predicts it "
        "from the weights. A claim is a list of statements, all of which must be shown. Changes without "
        "sharp or diffuse heads are compared with those without as many random heads of the same sublayers "
        "(equal size) and, for the traits, with those without random heads that cost as much error (equal "
        "damage), averaged over the shares ablated. Intervals are over configurations and random draws. The "
        "claims about a model are one family of tests: a claim is decided if its Holm-corrected p is at most "
        f"0.05 under each of {SEEDS} bootstrap seeds."
    )
    folded = (
        table("The same by share of heads ablated", pd.concat([one.by_share for one in explained])),
        table("What every set of heads costs", pd.concat([_named(one, one.effects) for one in explained])),
    )
    return [
        Section("Do sharp heads copy?", (curves,), folded, lead=lead, shown=(mechanism_summary(explained),))
    ]


def mechanism_summary(explained: Sequence[Explanation]) -> Table:
    """One row a statement: the verdict on its claim, and its estimate."""
    return _claims("Does mechanism 3 hold?", [one.mechanism for one in explained])


def _claims(title: str, tables: Sequence[pd.DataFrame]) -> Table:
    """The rows of several `mechanism_table`; model, claim and verdict at the first statement of a claim."""
    whole = pd.concat(tables, ignore_index=True)
    shown = whole[["model", "claim", "verdict", "statement", "value", "low", "high", "units", "note"]].copy()
    named = ["model", "claim", "verdict", "note"]
    shown.loc[whole.duplicated(["model", "claim"]), named] = ""
    return table(title, shown)


def _chaotic(explained: Sequence[Explanation]) -> list[Section]:
    """Forecasts of chaotic trajectories, beside those of who copies."""
    if not explained:
        return []
    shown = [table("The model, and who only copies", pd.concat([_beside_copiers(one) for one in explained]))]
    judged = [one.chaos_mechanism for one in explained if len(one.chaos_mechanism)]
    lead = captions.CHAOS
    if judged:
        lead += f" {captions.CHAOS_CLAIMS}"
        shown.append(_claims("Mechanism 3 on chaotic trajectories", judged))
    folded = (table("All of it", pd.concat([_named(one, one.chaos) for one in explained])),)
    return [Section("On chaotic trajectories", (), folded, lead=lead, shown=tuple(shown))]


def _beside_copiers(one: Explanation) -> pd.DataFrame:
    """A row a forecaster, a column a measure, numbers with their intervals."""
    rows: dict[str, dict[str, str]] = {}
    for row in one.chaos.to_dict("records"):
        sign = "" if row["measure"] == "error" else "+"
        text = f"{row['mean']:{sign}.3f} [{row['low']:{sign}.3f}, {row['high']:{sign}.3f}]"
        if row["difference"] == row["difference"]:
            text += f" ({row['difference']:+.3f})"
        columns = rows.setdefault(row["forecaster"], {"model": one.model, "forecaster": row["forecaster"]})
        columns[row["measure"].replace("_", " ")] = text
    return pd.DataFrame(rows.values())


def _named(one: Explanation, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(model=one.model)[["model", *frame.columns]]


def of_model(key: str, found: Explanation) -> list[Section]:
    """Telling heads, the residual stream and the parts of the forecast of one model."""
    pictures = [*_attention(key, found), *_gallery(key, found), *_stream(key, found)]
    lead = (
        f"{_looked_at(found)} The heads below are extremes of {count(len(found.heads), 'head')}, and an "
        "extreme of many is partly luck, which its own interval does not hold: read each against its null."
    )
    tables = (
        table("What goes along with what a head does (Spearman's rho over heads)", found.correlations),
        table("Does stable rank tell the bandwidth? (Spearman's rho over heads)", found.kernel),
        table("Induction and parroting (Spearman's rho over heads)", found.induction_effects),
        table("Heads by their effect on parroting", _by_parroting(found.heads)),
        table("Induction by length and count of the repetition", _combinations(found.induction)),
        table("All heads, explained", _readable(found.heads)),
        table("Residual stream", found.residual),
        table("What every layer would forecast", found.lens),
        table("Similarity of layers", found.cka),
        table("Parts of the forecast", found.attribution),
    )
    return [Section(f"Why: {found.model}", tuple(pictures), tables, lead=lead)]


def _by_parroting(heads: pd.DataFrame) -> pd.DataFrame:
    """Heads in order of the change of parroting without them, lowest first; none if none was ablated."""
    if "parroting" not in heads:
        return heads.iloc[:0]
    names = ["address", "parroting", "parroting_low", "parroting_high", "mase", "sharpness", "followed_score"]
    ranked = heads.dropna(subset=["parroting"]).sort_values("parroting", kind="stable")
    return ranked[[name for name in names if name in heads]]


def _combinations(induction: pd.DataFrame) -> pd.DataFrame:
    """Of every head and combination, the scores and the interval of the one that is drawn."""
    if not len(induction):
        return induction
    names = ["address", "block", "repeats", "occurrence_score", "followed_score"]
    return induction[[*names, "followed_score_low", "followed_score_high"]]


def _readable(heads: pd.DataFrame) -> pd.DataFrame:
    """Without intervals, which are in the files that `tsprune explain` writes."""
    hidden = tuple(name for name in heads if name.endswith(("_low", "_high")))
    return heads.drop(columns=[*hidden, "stack", "layer", "attention", "head"])


def _attention(key: str, found: Explanation) -> list[Picture]:
    """What heads attend to, whether stable rank tells, and whether induction and parroting go together."""
    drawn: list[tuple[str, str, str, Callable[..., go.Figure]]] = [
        ("attended", "What every head attends to", captions.ATTENDED, figures.attended_maps),
        ("kernel", "Does stable rank tell the bandwidth?", captions.KERNEL, figures.kernel_points),
    ]
    if len(found.induction):
        drawn.append(
            ("induction", "Which heads find repetitions?", captions.INDUCTION, figures.induction_curves)
        )
    if "parroting" in found.heads:
        drawn.append(
            (
                "ranked",
                "Without which head does the forecast copy less?",
                captions.RANKED,
                figures.parroting_ranked,
            )
        )
    return [
        picture(f"{name}-{key}", heading, caption, _of(found, draw)) for name, heading, caption, draw in drawn
    ]


def _of(found: Explanation, draw: Callable[..., go.Figure]) -> Callable[[int | None], go.Figure]:
    return lambda columns: draw(found, columns=columns)


def _gallery(key: str, found: Explanation) -> list[Picture]:
    rows = found.heads.set_index("address")
    profiles = dict(iter(found.profile.groupby("address"))) if len(found.profile) else {}
    empty = found.profile.iloc[:0]
    return [
        picture(
            f"head-{key}-{number}",
            f"{one.address}: {' and '.join(one.reasons)}",
            captions.PORTRAIT,
            _portrait(one, profiles.get(one.address, empty)),
            facts(rows.loc[one.address].to_dict()),
        )
        for number, one in enumerate(found.portraits)
    ]


def _portrait(one: Portrait, profile: pd.DataFrame) -> Callable[[int | None], go.Figure]:
    return lambda columns: figures.head_portrait(one, profile, columns=columns)


def _guarded(found: Explanation) -> tuple[str, ...]:
    """Whether the lens shows anything at all."""
    if not len(found.guard):
        return ()
    values = found.guard["other"].min(), found.guard["other"].max(), found.guard["itself"].max()
    least, most, itself = (percent(float(value), signed=False) for value in values)
    return (
        "Does the lens see anything? With another window's stream in place of a layer's the network's output "
        f"changes by {least} to {most} of its largest value, layer by layer; with its own, by {itself}.",
    )


def _stream(key: str, found: Explanation) -> list[Picture]:
    stacks = found.residual["stack"].nunique() if len(found.residual) else 0
    parts = captions.PARTS + (captions.ENCODER if stacks > 1 else "")
    return [
        picture(
            f"stream-{key}",
            "The residual stream",
            captions.STREAM,
            lambda columns: figures.residual_stream(found, columns=columns),
            _guarded(found),
        ),
        picture(
            f"similarity-{key}",
            "Which layers see alike",
            captions.SIMILARITY,
            lambda columns: figures.layer_similarity(found, columns=columns),
        ),
        picture(
            f"parts-{key}",
            "Who wrote the forecast",
            f"{parts}{captions.INTERVALS}",
            lambda columns: figures.forecast_parts(found, columns=columns),
        ),
    ]
