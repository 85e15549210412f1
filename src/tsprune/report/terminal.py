"""The terminal summary of a study, at most 100 columns wide.

In narrower terminals, down to 80 columns, cells take more lines, so that names and numbers stay whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tsprune.report.digest import HEADLINE, extreme_layers, heads_at_totals, pruning_at, tally
from tsprune.report.words import between, drawn, parameters, percent, precision_of, ratio, windows_of
from tsprune.statistics import Estimate
from tsprune.studies.study_result import ModelStudy, Study
from tsprune.text import count

_WIDTH = 100
_LONGEST = 32  # longer names (paths) are folded
_ROOM = 72  # columns of the widest table beside the names, with an interval on one line
_VERDICT_STYLE = {"confirmed": "green", "refuted": "red", "undecided": "yellow", "not applicable": "dim"}
_UNIT = {"both": "heads and MLP", "heads": "heads", "mlp": "MLP"}


def print_summary(study: Study, console: Console) -> None:
    """Print the study's summary on `console`, at most 100 columns wide."""
    width = min(_WIDTH, console.width)
    for part in _Tables(study, width).all():
        console.print(part, width=width)
        console.print()
    for note in (note for model in study.models for note in model.notes):
        console.print(Text(note, style="yellow"), width=width)
    if study.skipped:
        console.print(Text(f"Skipped: {count(len(study.skipped), 'item')}", style="yellow"))
        for item, reason in study.skipped:
            console.print(Text(f"  {item}: {reason}"), width=width)


class _Tables:
    """Tables with a model in each row: its name, and below it the `detail` of the row."""

    def __init__(self, study: Study, width: int) -> None:
        self.study = study
        self.names = min(_LONGEST, max((len(model.name) for model in study.models), default=0))
        self.narrow = width < self.names + _ROOM

    def all(self) -> Iterator[RenderableType]:
        yield self.models()
        if self.study.models:
            yield from (self.layers(), self.pruning(), self.heads_at())
        if self.study.claims:
            yield Text("Claims of the paper", style="bold")
            about = dict.fromkeys(claim.model for claim in self.study.claims)
            yield from (self.claims(name) for name in about)

    def table(self, title: str, *columns: str) -> Table:
        """A table with the names of models and right-aligned `columns`."""
        table = _table(title)
        table.add_column("model", overflow="fold", min_width=self.names)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        return table

    def row(self, table: Table, model: ModelStudy, detail: str, *cells: str) -> None:
        # names come from outside: never read them as markup
        table.add_row(Text.assemble(model.name, ("\n" + detail if detail else "", "dim")), *map(Text, cells))

    def change(self, found: Estimate) -> str:
        """A change, and its 95 % interval below it."""
        if not found.has_interval:
            return percent(found.value)
        limits = between(found.low, found.high)
        return f"{percent(found.value)}\n" + (limits.replace(" to ", "\nto ") if self.narrow else limits)

    def models(self) -> Table:
        study = self.study
        table = self.table("", "parameters", "MASE\n/ naive", "CRPS\n/ naive", "claims\n+ / - / ?")
        table.title = Text(
            f"Study on {study.suite} ({windows_of(study)}); claims: confirmed / refuted / undecided"
        )
        for model in study.models:
            detail = f"{model.family}, {drawn(model.samples)}"
            if model.precision:
                detail += f", {precision_of(model)}"
            ratios = ratio(model.mase_ratio), ratio(model.crps_ratio)
            verdicts = " / ".join(map(str, tally(study, model.name)))
            self.row(table, model, detail, parameters(model.parameters), *ratios, verdicts)
        return table

    def layers(self) -> Table:
        title = f"Ablating one layer: change of {HEADLINE}, 95 % interval"
        table = self.table(title, "hurts most", "change", "hurts least", "change")
        for model in self.study.models:
            extremes = extreme_layers(model)
            cells = [text for one in extremes or () for text in (one.layer, self.change(one.change))]
            detail = f"{_UNIT[extremes[0].unit]} ablated" if extremes else "no layer ablated"
            self.row(table, model, detail, *cells)
        return table

    def pruning(self) -> Table:
        columns = ("highest\nrank first", "lowest\nrank first", "random\nmean", "random\nextremes")
        table = self.table(
            f"Pruning heads of the middle layers: change of {HEADLINE}, 95 % interval", *columns
        )
        for model in self.study.models:
            point = pruning_at(model)
            if point is None:
                self.row(table, model, "no heads removed")
                continue
            removed = f"{point.heads_removed} of {point.heads_total} heads removed ({point.percent:.0f} %)"
            cells = [self.change(found) for found in point.changes.values()]
            if point.draws:
                cells.append(f"{percent(point.draws[0])}\nto {percent(point.draws[-1])}")
            self.row(table, model, removed, *cells)
        return table

    def heads_at(self) -> Table:
        title = f"heads@{self.study.percent:g}pp: heads that must stay, all layers"
        table = self.table(title, "heads", "chosen on\ncalibration", "chosen\non test")
        for model in self.study.models:
            for row in heads_at_totals(model).to_dict("records"):
                values = [row[name] for name in ("heads", "calibration", "test")]
                numbers = ["n/a" if math.isnan(value) else f"{int(value)}" for value in values]
                self.row(table, model, f"{row['stack']}, {row['attention']}-attention", *numbers)
        return table

    def claims(self, name: str) -> Table:
        table = _table("")
        table.title, table.show_header = Text(name), False
        table.add_column("verdict", no_wrap=True)
        table.add_column("claim", overflow="fold")
        for claim in self.study.claims:
            if claim.model == name:
                about = Text.assemble(claim.statement, "\n", (claim.evidence, "dim"))
                table.add_row(Text(claim.verdict, style=_VERDICT_STYLE[claim.verdict]), about)
        return table


def _table(title: str) -> Table:
    table = Table(title=title, box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.title_justify, table.title_style = "left", "bold"
    return table
