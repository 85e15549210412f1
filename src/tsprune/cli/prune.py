"""`tsprune prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import (
    BatchOption,
    ConfigsOption,
    DataOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    open_model,
    open_suite,
)
from tsprune.cli.output import evidence_record, print_evidence, print_json, progress_bar
from tsprune.errors import TspruneError

if TYPE_CHECKING:
    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Evidence, Forecaster
    from tsprune.pruning import Plan


def prune(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--out", help="New folder for the smaller checkpoint.")],
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Address or pattern of what to remove, e.g. 'decoder.*.cross.head.2'; repeatable."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="File with a plan (JSON, see tsprune.Plan) in place of --remove.")
    ] = None,
    max_loss: Annotated[
        str | None,
        typer.Option(
            help="Search for what can go for this loss of MASE, e.g. 1%: chosen on one half of the series, "
            "reported on the other."
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="With --max-loss, what to save: latency, flops or parameters.")
    ] = "latency",
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="With --max-loss, only head, mlp, attention or layer; repeatable."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="With --remove or --plan, measure scores and speed for the card, too."
        ),
    ] = False,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    seed: SeedOption = 0,
    batch_size: BatchOption = 64,
    as_json: JsonOption = False,
) -> None:
    """Remove components for good: a smaller checkpoint that tsprune.load and load_pipeline read."""
    from tsprune.atomic import check_free
    from tsprune.data import split
    from tsprune.pruning import Plan
    from tsprune.pruning import prune as run_prune

    if sum((plan is not None, bool(remove), max_loss is not None)) != 1:
        raise TspruneError(
            "say what to remove: one of --remove PATTERN (repeatable), --plan FILE, --max-loss 1%"
        )
    check_free(output)
    chosen = Plan.load(plan) if plan is not None else None
    loss = None if max_loss is None else share(max_loss)
    suite = open_suite(data, configs) if measure or loss is not None else None
    loaded = open_model(model, "cpu")
    if loss is not None and suite is not None:
        chosen = _searched(loaded, suite, loss, objective, kinds, seed, batch_size)
        suite = split(suite, seed=seed)[1]  # what the search has not looked at
    pruned = run_prune(loaded, chosen or remove or [])
    evidence = {} if suite is None else _evidence(loaded, pruned, suite, batch_size, seed)
    pruned.save(output, evidence=evidence)
    assert pruned.origin is not None
    gone = [component.address for component in pruned.origin.components]
    before, after = loaded.parameter_count, pruned.parameter_count
    if as_json:
        sizes = {"before": before, "after": after}
        print_json(
            {"out": str(output), "removed": gone, "parameters": sizes, "measured": evidence_record(evidence)}
        )
        return
    print_evidence(
        f"{model}: {before:,} parameters, {after:,} after removing {len(gone)} components "
        f"({1 - after / before:.1%} fewer). Written to {output}; its README.md is the model card.",
        evidence,
    )


def _searched(
    model: Forecaster,
    suite: Suite,
    loss: float,
    objective: str,
    kinds: list[str] | None,
    seed: int,
    batch_size: int,
) -> Plan:
    from tsprune.pruning.search import KINDS
    from tsprune.pruning.search import plan as search

    with progress_bar("search") as update:
        found = search(
            model,
            suite,
            loss,
            objective=objective,  # type: ignore[arg-type]
            kinds=kinds or KINDS,  # type: ignore[arg-type]
            seed=seed,
            batch_size=batch_size,
            progress=update,
        )
    if not found.components:
        raise TspruneError(f"nothing can go for a loss of {loss:.3g}; allow more")
    return found


def share(text: str) -> float:
    """A share that is written as 1% or 0.01; TspruneError if it is neither."""
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise TspruneError(f"{text!r} is no share; write 1% or 0.01") from None


def _evidence(before: Forecaster, after: Forecaster, suite: Suite, batch_size: int, seed: int) -> Evidence:
    from tsprune.pruning import compare, latency_evidence

    scores = compare(before, after, suite, batch_size=batch_size, seed=seed)
    return {**scores.evidence(), **latency_evidence(before, after)}
