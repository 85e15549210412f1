"""The page of a plan: its cost in accuracy against its gain in time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.pruning.plan import Plan
from tsprune.report import figures
from tsprune.report.section import Section, page, picture
from tsprune.report.tables import page_table
from tsprune.report.words import between, percent
from tsprune.text import count


def write_tradeoff(points: pd.DataFrame, plan: Plan, machine: str, path: Path) -> None:
    """Write the page of a plan's `tsprune.pruning.tradeoff` to `path`, completely or not at all.

    machine : the hardware that was timed, in one line
    """
    write_whole(Path(path), render_tradeoff(points, plan, machine).encode("utf-8"))


def render_tradeoff(points: pd.DataFrame, plan: Plan, machine: str) -> str:
    """The page as HTML."""
    marked = 100 * float(plan.provenance["max_loss"])
    values = {"machine": machine}
    drawn = picture("tradeoff", figures.accuracy_against_time, points, percent=marked, values=values)
    table = page_table(
        "All points", points.rename(columns={"components": "components removed", "what": "addresses"})
    )
    section = Section("Cost in accuracy, gain in time", (drawn,), (table,))
    return page(
        "tradeoff.html.jinja",
        subject=plan.model,
        headline=tradeoff_headline(points, plan),
        sections=[section],
    )


def tradeoff_headline(points: pd.DataFrame, plan: Plan) -> str:
    """Cost and gain of the plan and of the cheapest layer, in sentences."""
    loss, metric = plan.provenance["max_loss"], plan.provenance["metric"]
    text = f"Allowed: {percent(loss)} {metric} on the calibration series."
    ways = dict(iter(points.groupby("way", sort=False))) if len(points) else {}
    if "search" in ways:
        last = ways["search"].iloc[-1]
        time, fast, slow = (
            f"{100 * last[name]:.0f}" for name in ("time_ratio", "time_ratio_low", "time_ratio_high")
        )
        text += (
            f" Without {count(int(last['components']), 'component')}, forecasts take {time} % of the time "
            f"(95 % interval {fast} to {slow} %), and MASE on the other series changes by "
            f"{percent(last['mase_change'])} ({between(last['mase_low'], last['mase_high'])})."
        )
    else:
        text += " No component can be removed."
    if "whole layers" in ways:
        first = ways["whole layers"].iloc[0]
        text += (
            f" Without {first['what'].replace(' ', ', ')} alone, MASE changes by "
            f"{percent(first['mase_change'])} and forecasts take {100 * first['time_ratio']:.0f} % of the "
            "time."
        )
    return text
