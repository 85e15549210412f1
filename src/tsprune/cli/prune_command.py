"""`tsprune prune`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsprune.cli.options import (
    BatchOption,
    ConfigsOption,
    DataOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    open_model,
    open_suite,
)
from tsprune.cli.output import evidence_record, print_evidence, print_frame, print_json, progress_bar, records
from tsprune.errors import TspruneError
from tsprune.files import check_files, check_free

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Evidence, Forecaster
    from tsprune.pruning import Plan

OutOption = Annotated[Path, typer.Option("--out", help="New folder for the smaller checkpoint.")]
RemoveOption = Annotated[
    list[str] | None,
    typer.Option(help="Address or pattern of what to remove, e.g. 'decoder.*.cross.head.2'; repeatable."),
]
PlanOption = Annotated[
    Path | None, typer.Option(help="File with a plan (JSON, see tsprune.Plan) in place of --remove.")
]
LossOption = Annotated[
    str | None,
    typer.Option(
        help="Search for what can go for this loss of MASE, e.g. 1%: chosen on one half of the series, "
        "reported on the other."
    ),
]
SavingOption = Annotated[
    str | None,
    typer.Option(
        help="Save this share, e.g. 30%, with the least change of the model's output on synthetic series; "
        "recover accuracy afterwards with tsprune recover."
    ),
]
ObjectiveOption = Annotated[
    str,
    typer.Option(help="With --max-loss or --saving, what to save: latency (estimated), flops or parameters."),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option("--kind", help="With these, only head, mlp, attention or layer; repeatable."),
]
MeasureOption = Annotated[
    bool,
    typer.Option("--measure", help="With --remove or --plan, measure scores and speed for the card, too."),
]
CurveOption = Annotated[
    Path | None,
    typer.Option(
        "--curve",
        help="With --max-loss, print what accuracy costs in time (on the way of the search, and of whole "
        "layers only) and draw it on a page of this name (.html). Takes a few minutes more.",
    ),
]


def prune_command(
    model: ModelArgument,
    output: OutOption,
    remove: RemoveOption = None,
    plan: PlanOption = None,
    max_loss: LossOption = None,
    saving: SavingOption = None,
    objective: ObjectiveOption = "latency",
    kinds: KindOption = None,
    measure: MeasureOption = False,
    curve: CurveOption = None,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    seed: SeedOption = 0,
    batch_size: BatchOption = 64,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove components for good: a smaller checkpoint that tsprune.load and load_pipeline read."""
    from tsprune.data import split
    from tsprune.models.placement import dtype_of
    from tsprune.models.saving import round_weights
    from tsprune.pruning import Plan, prune

    if sum((plan is not None, bool(remove), max_loss is not None, saving is not None)) != 1:
        raise TspruneError(
            "say what to remove: one of --remove PATTERN (repeatable), --plan FILE, --max-loss 1%, "
            "--saving 30%"
        )
    if curve is not None and max_loss is None:
        raise TspruneError("--curve draws the way of a search; give --max-loss, too")
    check_free(output)
    check_files(curve)
    stored = None if dtype is None else dtype_of(dtype)
    chosen = Plan.load(plan) if plan is not None else None
    loss, saved = (None if text is None else share(text) for text in (max_loss, saving))
    searched = loss is not None or saved is not None
    suite = open_suite(data, configs) if measure or searched else None
    loaded = open_model(model, "cpu")
    points = None
    if searched and suite is not None:
        chosen = _searched(
            loaded, suite, loss, saved, batch_size, objective=objective, kinds=kinds, seed=seed
        )
    if loss is not None and suite is not None and chosen is not None:
        points = None if curve is None else _curve(loaded, chosen, suite, batch_size, curve)
        _require_components(chosen, loss, curve)
        suite = split(suite, seed=seed)[1]  # what the search has not looked at
    pruned = prune(loaded, chosen or remove or [])
    round_weights(pruned, stored)  # what is measured is true of the file
    evidence = {} if suite is None else _evidence(loaded, pruned, suite, batch_size, seed)
    pruned.save(output, evidence=evidence)
    _print(loaded, pruned, output, evidence, points, as_json)


def _searched(
    model: Forecaster, suite: Suite, loss: float | None, saving: float | None, batch_size: int, **how: Any
) -> Plan:
    """What to remove for a loss, or for a saving; `how`: objective, kinds and seed of either search."""
    from tsprune.anatomy import KINDS
    from tsprune.pruning.search import plan as search

    how["kinds"] = how["kinds"] or KINDS
    with progress_bar("search") as update:
        return search(
            model,
            suite,
            max_loss=loss,
            saving=saving,
            batch_size=batch_size,
            progress=lambda stage, done, total: update(done, total),
            **how,
        )


def _curve(model: Forecaster, plan: Plan, suite: Suite, batch_size: int, path: Path) -> pd.DataFrame:
    """Points of accuracy and time, on their page by now."""
    from tsprune.cost.latency import machine
    from tsprune.pruning import tradeoff
    from tsprune.report import write_tradeoff

    with progress_bar("curve") as update:
        points = tradeoff(
            model,
            plan,
            suite,
            batch_size=batch_size,
            progress=lambda stage, done, total: update(done, total),
        )
    write_tradeoff(points, plan, machine(), path)
    return points


def _require_components(plan: Plan, loss: float, curve: Path | None) -> None:
    if not plan.components:
        why = "" if curve is None else f"; {curve} shows what whole layers cost"
        raise TspruneError(f"nothing can go for a loss of {100 * loss:.3g} %; allow more{why}")


def share(text: str) -> float:
    """A share that is written as 1% or 0.01; TspruneError if it is neither, or is below 0 or infinite."""
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise TspruneError(f"invalid share {text!r}; write 1% or 0.01")
    return value


def _evidence(before: Forecaster, after: Forecaster, suite: Suite, batch_size: int, seed: int) -> Evidence:
    from tsprune.pruning import compare, latency_evidence

    scores = compare(before, after, suite, batch_size=batch_size, seed=seed)
    return {**scores.evidence(), **latency_evidence(before, after)}


def _print(
    before: Forecaster,
    after: Forecaster,
    output: Path,
    evidence: Evidence,
    points: pd.DataFrame | None,
    as_json: bool,
) -> None:
    assert after.origin is not None
    gone = [component.address for component in after.origin.components]
    sizes = {"before": before.parameter_count, "after": after.parameter_count}
    if as_json:
        said: dict[str, Any] = {"out": str(output), "removed": gone, "parameters": sizes}
        said["measured"] = evidence_record(evidence)
        if points is not None:
            said["curve"] = records(points)
        print_json(said)
        return
    if points is not None:
        print_frame(points, "accuracy against time", _SHOWN)
    print_evidence(
        f"{before.name}: {sizes['before']:,} parameters, {sizes['after']:,} after removing {len(gone)} "
        f"components ({1 - sizes['after'] / sizes['before']:.1%} fewer). Written to {output}; its README.md "
        "is the model card.",
        evidence,
    )


# as many as a terminal of 80 columns shows; intervals are on the page and in --json
_SHOWN = ["way", "components", "calibration_loss", "mase_change", "flops", "ratio"]
