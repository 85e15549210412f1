"""`tsprune prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tsprune.anatomy import KINDS
from tsprune.choices import OBJECTIVES
from tsprune.cli.options import ModelArgument, SaveDtype, Shared, choice, option, share, with_shared
from tsprune.cli.output import evidence_rows, print_costs, print_evidence, print_frame
from tsprune.errors import TspruneError
from tsprune.files import check_files, check_free, existing_file
from tsprune.text import count

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Forecaster
    from tsprune.pruning import Plan


@with_shared("suite", "run", "output")
def prune_command(
    model: ModelArgument,
    output: Annotated[Path | None, option("New folder for the smaller checkpoint.", "--out")] = None,
    remove: Annotated[
        list[str] | None, option("Address or pattern to remove, e.g. 'decoder.*.cross.head.2'; repeatable.")
    ] = None,
    plan: Annotated[
        Path | None, option("File with a plan (JSON, see tsprune.Plan) in place of --remove.")
    ] = None,
    max_loss: Annotated[
        float | None,
        option(
            "Remove as much as this relative loss of MASE allows, e.g. 1%: chosen on one half of the "
            "series, reported on the other.",
            parser=share,
            metavar="SHARE",
        ),
    ] = None,
    saving: Annotated[
        float | None,
        option(
            "Remove until this share is saved, e.g. 30%, with the least change of forecasts of "
            "synthetic series; recover accuracy afterwards with tsprune recover.",
            parser=share,
            metavar="SHARE",
        ),
    ] = None,
    objective: Annotated[
        str, choice(OBJECTIVES, text="Cost to save with --max-loss or --saving; latency is estimated.")
    ] = "latency",
    kinds: Annotated[
        list[str] | None,
        choice(KINDS, "--kind", text="With --max-loss or --saving, only this kind; repeatable."),
    ] = None,
    measure: Annotated[
        bool, option("With --remove or --plan, also measure scores and speed.", "--measure")
    ] = False,
    curve: Annotated[
        Path | None,
        option(
            "With --max-loss, print accuracy against time (along the search, and for whole layers "
            "only) and draw it on a page of this name (.html). Takes a few minutes more."
        ),
    ] = None,
    save_dtype: SaveDtype = None,
    dry_run: Annotated[bool, option("Only estimate the time and memory of each stage.", "--dry-run")] = False,
    *,
    shared: Shared,
) -> None:
    """Remove components for good: a smaller checkpoint that tsprune.load and load_pipeline read."""
    if sum((plan is not None, bool(remove), max_loss is not None, saving is not None)) != 1:
        raise TspruneError(
            "name what to remove by one of: --remove PATTERN (repeatable), --plan FILE, --max-loss 1%, "
            "--saving 30%"
        )
    if curve is not None and max_loss is None:
        raise TspruneError("--curve needs --max-loss, whose search it draws")
    if not dry_run:
        if output is None:
            raise TspruneError("name a new folder for the smaller checkpoint: --out FOLDER")
        check_free(output)
        check_files(curve)
    if plan is not None:
        existing_file(plan, "plan")
    shared.check(model)
    searched = max_loss is not None or saving is not None
    suite = shared.suite if measure or searched else None
    from tsprune.data import split
    from tsprune.evaluation.single_series import unmeasured
    from tsprune.pruning import Plan, prune
    from tsprune.pruning.search import plan as search

    chosen = Plan.load(plan) if plan is not None else None
    loaded = shared.load(model)
    if dry_run:
        (chosen or Plan.of(loaded, remove or [])).check(loaded)
        _estimate(loaded, suite, saving, max_loss, objective, kinds, curve is not None, shared)
        return
    assert output is not None
    points = None
    if searched and suite is not None:
        with shared.running("search") as options:
            chosen = search(
                loaded,
                suite,
                max_loss=max_loss,
                saving=saving,
                objective=objective,  # type: ignore[arg-type]
                kinds=kinds or KINDS,  # type: ignore[arg-type]
                **options,
            )
    if max_loss is not None and suite is not None and chosen is not None:
        points = None if curve is None else _curve(loaded, chosen, suite, shared, curve)
        if not chosen.components:
            why = "" if curve is None else f"; {curve} shows the loss without whole layers"
            raise TspruneError(
                f"no component can be removed for a loss of {100 * max_loss:.3g} %; allow more{why}"
            )
        suite = split(suite, seed=shared.seed)[1]  # what the search has not looked at
    with shared.running("measure") as options:
        pruned = prune(loaded, chosen or remove or [], measure=suite, dtype=save_dtype, **options)
    pruned.save(output)
    notes = unmeasured(loaded, shared.suite) if max_loss is not None else ()
    _report(loaded, pruned, output, points, notes, shared)


def _estimate(
    model: Forecaster,
    suite: Suite | None,
    saving: float | None,
    max_loss: float | None,
    objective: str,
    kinds: list[str] | None,
    curve: bool,
    shared: Shared,
) -> None:
    """The expected cost of each stage, from a few timed pieces of them."""
    from tsprune.pruning.prune_cost import prune_cost
    from tsprune.run_options import RunOptions

    costs = prune_cost(
        model,
        suite,
        saving=saving,
        max_loss=max_loss,
        objective=objective,  # type: ignore[arg-type]
        kinds=kinds or KINDS,  # type: ignore[arg-type]
        curve=curve,
        options=RunOptions(shared.batch_size, shared.memory_bytes, shared.seed),
    )
    shared.report("prune", {"estimate": costs}, lambda: print_costs(model.name, costs))


def _curve(model: Forecaster, plan: Plan, suite: Suite, shared: Shared, path: Path) -> pd.DataFrame:
    from tsprune.cost.latency import machine
    from tsprune.pruning import tradeoff
    from tsprune.report import write_tradeoff

    with shared.running("curve") as options:
        points = tradeoff(model, plan, suite, **options)
    write_tradeoff(points, plan, machine(), path)
    return points


def _report(
    before: Forecaster,
    after: Forecaster,
    output: Path,
    points: pd.DataFrame | None,
    notes: tuple[str, ...],
    shared: Shared,
) -> None:
    assert after.origin is not None
    removed = [component.address for component in after.origin.components]
    sizes = {"before": before.parameter_count, "after": after.parameter_count}

    def tables() -> None:
        if points is not None:
            print_frame(points, "accuracy against time", _SHOWN)
        print_evidence(
            f"{before.name}: {sizes['before']:,} parameters, {sizes['after']:,} after removing "
            f"{count(len(removed), 'component')} ({1 - sizes['after'] / sizes['before']:.1%} fewer). "
            f"Written to {output}; its README.md is the model card.",
            after.evidence,
        )

    result = {
        "out": output,
        "removed": removed,
        "parameters": sizes,
        "measured": evidence_rows(after.evidence),
    }
    whole = result if points is None else {**result, "curve": points}
    shared.report("prune", whole, tables, notes=notes)


# intervals are on the page and in --json
_SHOWN = ["way", "components", "calibration_loss", "mase_change", "flops", "time_ratio"]
