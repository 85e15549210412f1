"""The page of a frontier: time against loss of everything that a model can be deployed as."""

from __future__ import annotations

from pathlib import Path

from tsprune.atomic import write_whole
from tsprune.frontiers import FRONTIER, Frontier
from tsprune.report.figures.frontier_figure import time_against_loss
from tsprune.report.section import Picture, Section, page, picture
from tsprune.report.tables import page_table


def write_frontier(found: Frontier, path: Path) -> None:
    """Writes the page to `path`, completely or not at all."""
    write_whole(path, render_frontier(found).encode("utf-8"))


def frontier_picture(found: Frontier) -> Picture:
    """Time against loss of every point."""
    values = {"machine": found.machine}
    return picture("frontier", time_against_loss, found.frame, metric=found.metric, values=values)


def render_frontier(found: Frontier) -> str:
    """The page as HTML: what to deploy, the picture, and a table of all points."""
    table = page_table("All points", found.frame, FRONTIER)
    section = Section("Every point", (frontier_picture(found),), (table,))
    return page("frontier.html.jinja", subject=found.title, headline=found.headline, sections=[section])
