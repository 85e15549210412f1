"""The summary that the command prints: what matters of a study on one screen, 100 columns wide.

On narrower ones, down to 80 columns, cells take more lines, so that names and numbers stay whole.
"""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tsprune.report.digest import Interval, extreme_layers, heads_at_totals, pruning_at, tally
from tsprune.report.words import between, count, drawn, parameters, percent, ratio
from tsprune.studies.study_result import Claim, Study

WIDTH = 100
NAME_WIDTH = 22  # names of models are not folded below this
VERDICT_STYLE = {"confirmed": "green", "refuted": "red", "undecided": "yellow", "not applicable": "dim"}


def print_summary(study: Study, console: Console) -> None:
    """Print the study's summary on `console`, at most 100 columns wide."""
    narrow = console.width < WIDTH
    parts: list[RenderableType] = [_models(study, narrow)]
    parts += [build(study, narrow) for build in (_layers, _pruning, _heads_at) if study.models]
    if study.claims:
        parts.append(_claims(study))
    for part in parts:
        console.print(part, width=min(WIDTH, console.width))
        console.print()
    if study.skipped:
        console.print(Text(f"Skipped: {count(len(study.skipped), 'item')}", style="yellow"))
        for what, reason in study.skipped:
            console.print(Text(f"  {what}: {reason}"), width=min(WIDTH, console.width))


def _table(title: str, *columns: str, left: int = 1, narrow: bool = False) -> Table:
    """A table whose first `left` columns are words and whose others are numbers."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    if narrow:
        table.padding = (0, 1, 0, 0)
    for index, name in enumerate(columns):
        words = index < left
        table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _about_models(title: str, *columns: str, study: Study, left: int = 1, narrow: bool) -> Table:
    """A table whose first column has the names of models."""
    table = _table(title, *columns, left=left, narrow=narrow)
    longest = max((len(model.name) for model in study.models), default=0)
    table.columns[0].min_width = min(longest, NAME_WIDTH)
    return table


def _row(table: Table, *cells: str, style: str = "") -> None:
    """Names come from outside: never read them as markup."""
    table.add_row(*(Text(cell) for cell in cells), style=style)


def _models(study: Study, narrow: bool) -> Table:
    title = (
        f"Study on {study.suite} ({count(study.windows, 'window')}); claims: confirmed / refuted / undecided"
    )
    table = _about_models(
        "",
        "model", "family", "forecasts", "param-\neters" if narrow else "parameters", "MASE\n/ naive",
        "CRPS\n/ naive", "claims\n+ / - / ?",
        left=3, study=study, narrow=narrow,
    )  # fmt: skip
    table.title = Text(title)
    for model in study.models:
        _row(
            table,
            model.name,
            model.family,
            drawn(model.samples),
            parameters(model.parameters),
            ratio(model.mase_ratio),
            ratio(model.crps_ratio),
            " / ".join(map(str, tally(study, model.name))),
        )
    return table


def _layers(study: Study, narrow: bool) -> Table:
    table = _about_models(
        "Ablating one layer: change of CRPS, 95 % interval",
        "model", "ablated", "hurts most", "change", "hurts least", "change",
        left=3, study=study, narrow=narrow,
    )  # fmt: skip
    for model in study.models:
        extremes = extreme_layers(model)
        if extremes is None:
            _row(table, model.name, "nothing known")
            continue
        worst, best = extremes
        unit = {"both": "heads and MLP", "heads": "heads", "mlp": "MLP"}[worst.unit]
        changes = [_with(effect.change, effect.interval, narrow) for effect in extremes]
        _row(table, model.name, unit, str(worst), changes[0], str(best), changes[1])
    return table


def _pruning(study: Study, narrow: bool) -> Table:
    table = _about_models(
        "Pruning the middle layers' heads: change of CRPS, 95 % interval",
        "model", "heads\nremoved" if narrow else "heads removed", "highest\nrank first",
        "lowest\nrank first", "random\nmean", "random\nextremes",
        study=study, narrow=narrow,
    )  # fmt: skip
    separator = "\n" if narrow else " "
    for model in study.models:
        point = pruning_at(model)
        if point is None:
            _row(table, model.name, "none")
            continue
        _row(
            table,
            model.name,
            f"{point.heads_removed} of {point.heads_total}{separator}({point.percent:.0f} %)",
            _with(point.high_to_low, point.high_interval, narrow),
            _with(point.low_to_high, point.low_interval, narrow),
            _with(point.random_mean, point.random_interval, narrow),
            f"{percent(point.random_low)}\nto {percent(point.random_high)}" if point.seeds else "",
        )
    return table


def _with(change: float, interval: Interval, narrow: bool) -> str:
    """A change, and its 95 % interval on a line of its own, or on two."""
    if interval[0] != interval[0]:
        return percent(change)
    limits = between(*interval)
    if narrow:
        limits = limits.replace(" to ", "\nto ")
    return f"{percent(change)}\n{limits}"


def _heads_at(study: Study, narrow: bool) -> Table:
    table = _about_models(
        f"heads@{study.percent:g}pp: heads that must stay, all layers",
        "model", "sublayers", "heads", "chosen on\ncalibration", "chosen\non test",
        left=2, study=study, narrow=narrow,
    )  # fmt: skip
    for model in study.models:
        for row in heads_at_totals(model).to_dict("records"):
            numbers = [_whole(row[key]) for key in ("heads", "calibration", "test")]
            _row(table, model.name, f"{row['stack']}, {row['attention']}", *numbers)
    return table


def _whole(value: float) -> str:
    return "n/a" if value != value else f"{int(value)}"


def _claims(study: Study) -> Table:
    table = _table("Claims of the paper", "verdict", "model", "claim and what was measured", left=3)
    table.columns[0].no_wrap = True
    table.columns[1].max_width = 22
    for claim in study.claims:
        table.add_row(
            Text(claim.verdict, style=VERDICT_STYLE[claim.verdict]), Text(claim.model), _claim_text(claim)
        )
    return table


def _claim_text(claim: Claim) -> Text:
    return Text.assemble(claim.statement, "\n", (claim.evidence, "dim"))
