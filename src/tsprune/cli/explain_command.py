"""`tsprune explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tsprune.anatomy import Component
from tsprune.cli.options import ModelArgument, Shared, integer, option, with_shared
from tsprune.cli.output import check_pictures, note, print_costs, print_frame, print_rows, say
from tsprune.errors import TspruneError
from tsprune.files import check_files, output_folder

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.data.suite import Suite
    from tsprune.explain import Explanation
    from tsprune.models.forecaster import Forecaster

_CARRIERS = 5  # heads that are listed per trait


@with_shared("suite", "model", "batch_size", "store", "output", samples="9, and 5 by Chronos-T5")
def explain_command(
    model: ModelArgument,
    head: Annotated[
        str | None, option("Everything about this one head, e.g. decoder.3.cross.head.5.")
    ] = None,
    per_configuration: Annotated[int, integer("Windows of each configuration that are used.")] = 16,
    effects: Annotated[
        bool, option("Also ablate heads (takes most of the time).", "--effects/--no-effects")
    ] = True,
    chaotic: Annotated[
        bool, option("Also forecast chaotic trajectories, as copiers do.", "--chaos/--no-chaos")
    ] = True,
    dry_run: Annotated[bool, option("Only estimate the time and memory of each part.", "--dry-run")] = False,
    output: Annotated[
        Path | None, option("A page with pictures (NAME.html), or a folder for all tables, as CSV.", "--out")
    ] = None,
    picture: Annotated[
        Path | None, option("Folder for every figure of the page, each as .svg and .png.")
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Explain heads and layers: attention, copying, attribution, cost, and the residual stream."""
    if head is not None and Component.parse(head).kind != "head":
        raise TspruneError(f"{head!r} is not a head; one looks like decoder.3.cross.head.5")
    as_page = output is not None and output.suffix.lower() == ".html"
    if output is not None and not dry_run:
        check_files(output) if as_page else output_folder(output)
    check_pictures(picture, single=False)
    shared.check(model)
    suite = shared.suite
    from tsprune.data import chaos
    from tsprune.explain.overview import EXPLAIN_SAMPLES, EXPLAIN_TOKEN_SAMPLES, overview
    from tsprune.models.forecaster import drawing

    loaded = drawing(
        shared.load(model), shared.samples, usual=EXPLAIN_SAMPLES, of_tokens=EXPLAIN_TOKEN_SAMPLES
    )
    if head is not None:
        loaded.anatomy.select(head)
    if dry_run:
        _estimate(loaded, suite, per_configuration, effects, chaos() if chaotic else None, shared)
        return
    with shared.running("explain") as options:
        found = overview(
            loaded,
            suite,
            per_configuration=per_configuration,
            effects=effects,
            trajectories=chaos() if chaotic else None,
            **options,
        )
    tables = {name: _with_changes(frame) for name, frame in found.tables().items()}
    if output is not None:
        _write(found, tables, output, as_page)
    if picture is not None:
        from tsprune.report.explanation_page import explanation_pictures
        from tsprune.report.stills import write_stills

        write_stills(explanation_pictures(found), picture)
    chosen = tables if head is None else {name: tables[name] for name in ("carriers", "heads", "profile")}
    shared.report(
        "explain",
        {name: _of_head(frame, head) for name, frame in chosen.items()},
        lambda: _print_model(found, f"{model} on {suite.name}") if head is None else _print_head(found, head),
        skipped=found.skipped,
    )


def _estimate(
    model: Forecaster,
    suite: Suite,
    per_configuration: int,
    effects: bool,
    trajectories: Suite | None,
    shared: Shared,
) -> None:
    """The expected cost of each part, from a few timed forecasts."""
    from tsprune.explain.explanation_cost import explanation_costs

    costs = explanation_costs(
        model,
        suite,
        per_configuration,
        effects=effects,
        trajectories=trajectories,
        batch_size=shared.batch_size,
    )
    shared.report("explain", {"estimate": costs}, lambda: print_costs(model.name, costs))


def _of_head(frame: pd.DataFrame, head: str | None) -> pd.DataFrame:
    return frame if head is None or not len(frame) else frame[frame["address"] == head]


def _with_changes(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose columns of effects say that they are changes: `mase_change`, not `mase`."""
    effects = ("mase", "parroting", "seasonality", "mean_reversion")
    names = {
        f"{effect}{limit}": f"{effect}_change{limit}" for effect in effects for limit in ("", "_low", "_high")
    }
    return frame.rename(columns=names)


def _write(found: Explanation, tables: dict[str, pd.DataFrame], output: Path, as_page: bool) -> None:
    from tsprune.atomic import write_whole
    from tsprune.report import write_explanation

    if as_page:
        write_explanation(found, output)
        note(f"page: {output}")
        return
    filled = {name: frame for name, frame in tables.items() if len(frame)}
    for name, frame in filled.items():
        write_whole(output / f"{name}.csv", frame.to_csv(index=False).encode())
    note(f"{len(filled)} tables in {output}")


def _print_head(found: Explanation, head: str) -> None:
    row = _of_head(_with_changes(found.heads), head).iloc[0]
    names = [n for n in row.index if not n.endswith(("_low", "_high", "_uniform"))][5:]
    limits = ("low", "high", "uniform")
    rows = [{"measure": n, "value": row[n], **{c: row.get(f"{n}_{c}") for c in limits}} for n in names]
    print_rows(rows, head, ("value", *limits))
    profile = _of_head(found.profile, head).nlargest(8, "mass")
    print_frame(profile, "attention by distance: time steps back", ["lag", "mass", "uniform"])


def _print_model(found: Explanation, title: str) -> None:
    if len(found.carriers):
        _print_carriers(found)
    for name, columns, heading in _TABLES:
        frame = _with_changes(getattr(found, name))
        without_limits = [column for column in frame if not column.endswith(("_low", "_high"))]
        shown = [column for column in columns or without_limits if column in frame]
        print_frame(frame, f"{title}: {heading}" if name == "heads" else heading, shown)
    for score, part in found.kernel[found.kernel["group"] == "all"].groupby("score", sort=False):
        columns = ["bandwidth", "rho", "low", "high", "p_value", "count"]
        print_frame(part, f"does {score} predict the bandwidth? Spearman's rho over heads, 95 %", columns)
    if len(found.attribution):
        columns = ["part", "share", "low", "high", "size"]
        largest = found.attribution.nlargest(10, "size")
        print_frame(largest, "share of the forecast by part of the model", columns)
    if len(found.mechanism):
        columns = ["claim", "statement", "value", "low", "high", "verdict"]
        print_frame(found.mechanism, "does the paper's third mechanism hold?", columns)
    for trait, part in found.by_share.groupby("trait", sort=False) if len(found.by_share) else ():
        columns = ["percent", "sharp", "diffuse", "excess", "low", "high"]
        print_frame(part, f"{trait} without the sharpest heads, against as many random ones", columns)
    if len(found.chaos):
        beside = found.chaos.pivot(index="forecaster", columns="measure", values="mean")
        ordered = beside.loc[found.chaos["forecaster"].unique(), found.chaos["measure"].unique()]
        title = "on chaotic trajectories, relative to the true future (error: MASE)"
        print_frame(ordered.reset_index(), title)


def _print_carriers(found: Explanation) -> None:
    """The answer first: the heads that carry parroting and seasonality."""
    from tsprune.explain.carriers import carriers_sentence

    say(carriers_sentence(found.carriers))
    for trait, part in found.carriers.groupby("trait", sort=False):
        rows = part.head(_CARRIERS).drop(columns="trait")
        print_frame(rows, f"heads that carry {trait}: its change without each")


# table, columns (None: all but the limits of intervals), heading
_TABLES: tuple[tuple[str, list[str] | None, str], ...] = (
    (
        "heads",
        ["address", "sharpness", "effective_keys", "lag", "period_share", "period_share_uniform"],
        "attention of each head",
    ),
    (
        "heads",
        ["address", "stable_rank", "followed_score", "size", "mase_change", "parroting_change"],
        "copying, share of the forecast, and loss without each head",
    ),
    ("residual", ["stack", "layer", "norm", "update", "cosine"], "residual stream"),
    ("lens", None, "forecast that each layer would give"),
)
