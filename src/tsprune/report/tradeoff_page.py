"""A page about a plan: what accuracy costs in time, on one picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.pruning.plan import Plan
from tsprune.report import figures
from tsprune.report.section import Section, page, picture
from tsprune.report.tables import table

_CAPTION = (
    "A point is a model with some components physically removed: on the way of the plan search, and with "
    "whole layers removed only. Both are chosen on one half of the series; changes of MASE and CRPS are of "
    "the other half (geometric mean over configurations of the ratio to Seasonal Naive's; +6 % is 6 % worse) "
    "with 95 % intervals over configurations (studentised bootstrap of log ratios). "
    "Time is that of a forecast of 64 windows, measured in turns with the original's, with the 95 % interval "
    "of its median. Further left is faster, lower is better."
)


def write_tradeoff(points: pd.DataFrame, plan: Plan, machine: str, path: Path) -> None:
    """Write the page of a plan's `tsprune.pruning.tradeoff` to `path`; complete, or not at all.

    machine : what was timed on, in one line
    """
    write_whole(Path(path), render_tradeoff(points, plan, machine).encode("utf-8"))


def render_tradeoff(points: pd.DataFrame, plan: Plan, machine: str) -> str:
    """The page as HTML."""
    percent = 100 * float(plan.provenance["max_loss"])
    section = Section(
        "What accuracy costs in time",
        (
            picture(
                "tradeoff",
                "Accuracy against time",
                f"{_CAPTION} Timed on: {machine}.",
                lambda columns: figures.accuracy_against_time(points, percent=percent, columns=columns),
            ),
        ),
        (table("All points", points.rename(columns={"what": "gone"})),),
    )
    return page("tradeoff.html.jinja", model=plan.model, headline=headline(points, plan), sections=[section])


def headline(points: pd.DataFrame, plan: Plan) -> str:
    """What the plan costs and gains, and the cheapest layer, in sentences."""
    how = plan.provenance
    allowed = f"For at most {100 * how['max_loss']:.3g} % more {how['metric']} on the series it was chosen on"
    ways = dict(iter(points.groupby("way", sort=False))) if len(points) else {}
    if "search" not in ways:
        said = f"{allowed} nothing can go."
    else:
        last = ways["search"].iloc[-1]
        said = (
            f"{allowed}, {int(last['components'])} components go: forecasts take {100 * last['ratio']:.0f} % "
            f"of the time (95 % interval {100 * last['ratio_low']:.0f} to {100 * last['ratio_high']:.0f}), "
            f"and MASE on the other series changes by {100 * last['mase_change']:+.1f} % "
            f"({100 * last['mase_low']:+.1f} to {100 * last['mase_high']:+.1f})."
        )
    if "whole layers" in ways:
        first = ways["whole layers"].iloc[0]
        said += (
            f" The first to go of whole layers, {first['what'].replace(' ', ', ')}, changes MASE there by "
            f"{100 * first['mase_change']:+.1f} %, for {100 * first['ratio']:.0f} % of the time."
        )
    return said
