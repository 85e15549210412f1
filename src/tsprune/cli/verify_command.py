"""`tsprune verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tsprune.cli.options import (
    COUNT,
    BatchOption,
    ConfigsOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SamplesOption,
    finite,
    open_model,
    open_suite,
)
from tsprune.cli.output import out, print_frame, print_json, print_skipped, progress_bar, records
from tsprune.errors import TspruneError, printable

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Forecaster
    from tsprune.verification import RankComparison, ScoreComparison

SHOWN = 10  # heads beyond the tolerance that are listed


def verify_command(
    model: ModelArgument,
    against: Annotated[
        Path | None,
        typer.Option(
            help="CSV of stable ranks: checkpoint, attention, layer, head, stable_rank.", show_default=False
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="CSV of published scores: config, model, MASE, CRPS; needs --data."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Root folder of a GIFT-Eval copy, for --scores.")] = None,
    configs: ConfigsOption = None,
    name: Annotated[
        str | None,
        typer.Option("--model", help="Which model of the tables it is; by default, by its name."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=COUNT,
            callback=finite,
            help="Relative difference of stable ranks that counts as equal.",
        ),
    ] = 1e-3,
    score_tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=COUNT,
            callback=finite,
            help="Relative difference of scores that counts as equal.",
        ),
    ] = 0.02,
    samples: SamplesOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a checkpoint against published numbers; exit code 1 if they do not hold.

    Compares the stable rank of every head, and with --scores MASE and CRPS per configuration.
    """
    from tsprune.verification import RANK_COLUMNS, SCORE_COLUMNS, compare_stable_ranks, read_table

    if against is None and scores is None:
        raise TspruneError("nothing to verify: name a table with --against or --scores")
    if scores is not None and data is None:
        raise TspruneError("--scores needs --data, the root folder of a GIFT-Eval copy")
    # tables first: a mistake in them should not wait for a model to load
    rank_table = None if against is None else read_table(against, RANK_COLUMNS)
    score_table = None if scores is None else read_table(scores, SCORE_COLUMNS)
    suite = None if data is None or scores is None else open_suite(data, configs)
    loaded = None if model == "seasonal-naive" else open_model(model, device, samples)
    ranks = None
    if rank_table is not None:
        if loaded is None:
            raise TspruneError("seasonal-naive has no heads; leave --against out")
        ranks = compare_stable_ranks(loaded, rank_table, name, tolerance=tolerance)
    found: ScoreComparison | None = None
    skipped: list[tuple[str, str]] = []
    if score_table is not None and suite is not None:
        found, skipped = _compare(loaded, suite, score_table, name or model, score_tolerance, batch_size)

    holds = all(part.holds for part in (ranks, found) if part is not None)
    if as_json:
        print_json({"holds": holds, **_ranks_json(ranks), **_scores_json(found, skipped)})
    else:
        if ranks is not None:
            _print_ranks(model, ranks)
        if found is not None:
            _print_scores(model, found)
            print_skipped(skipped)
    if not holds:
        raise typer.Exit(1)


def _compare(
    model: Forecaster | None,
    suite: Suite,
    published: pd.DataFrame,
    name: str,
    tolerance: float,
    batch_size: int,
) -> tuple[ScoreComparison, list[tuple[str, str]]]:
    """Scores (of Seasonal Naive without a model) beside the published ones, and what was left out."""
    from tsprune.evaluation import evaluate
    from tsprune.verification import compare_scores, model_in_table

    which = model_in_table(name, published["model"].astype(str).unique().tolist())
    with progress_bar("evaluate") as update:
        frame = evaluate(
            "seasonal-naive" if model is None else model,
            suite,
            batch_size=batch_size,
            progress=lambda _name, done, total: update(done, total),
        )
    return compare_scores(frame, published, which, tolerance=tolerance), frame.attrs["skipped"]


def _ranks_json(found: RankComparison | None) -> dict[str, object]:
    if found is None:
        return {}
    (worst,) = records(found.worst.to_frame().T)
    return {
        "stable_ranks": {
            "model": found.model,
            "holds": found.holds,
            "tolerance": found.tolerance,
            "heads_compared": len(found.heads),
            "heads_total": found.total,
            "heads_wrong": len(found.wrong),
            "worst": worst,
            "rank_correlation": None if found.correlation != found.correlation else found.correlation,
            "explanation": found.explanation or None,
            "heads": records(found.heads),
        }
    }


def _scores_json(found: ScoreComparison | None, skipped: list[tuple[str, str]]) -> dict[str, object]:
    if found is None:
        return {}
    return {
        "scores": {
            "model": found.model,
            "holds": found.holds,
            "tolerance": found.tolerance,
            "configurations": records(found.configurations),
            "not_published": list(found.missing),
            "skipped": skipped,
        }
    }


def _verdict(holds: bool) -> str:
    return "[green]holds[/]" if holds else "[red]does not hold[/]"


def _print_ranks(model: str, found: RankComparison) -> None:
    if not found.holds:
        title = f"{model}: heads that are not as in {found.model}, worst first"
        print_frame(found.wrong.head(SHOWN), title)
    worst = found.worst
    out.print(
        f"Stable ranks of {escape(printable(found.model))}: {_verdict(found.holds)}. "
        f"{len(found.heads) - len(found.wrong)} of {len(found.heads)} heads within "
        f"{100 * found.tolerance:g} % ({found.total} in these sublayers); worst {worst['address']}, "
        f"{worst['stable_rank']:.4f} instead of {worst['reference']:.4f} "
        f"({100 * worst['difference']:.2g} %); "
        f"rank correlation {found.correlation:.4f}",
        highlight=False,
        soft_wrap=True,
    )
    if found.explanation:
        out.print(found.explanation, markup=False, highlight=False, soft_wrap=True)


def _print_scores(model: str, found: ScoreComparison) -> None:
    print_frame(found.configurations, f"{model} beside the published scores of {found.model}")
    count = len(found.configurations)
    out.print(
        f"Scores of {escape(printable(found.model))}: {_verdict(found.holds)}. "
        f"{count - len(found.wrong)} of {count} configurations "
        f"within {100 * found.tolerance:g} % in MASE and CRPS",
        highlight=False,
        soft_wrap=True,
    )
    if found.missing:
        out.print(
            printable(f"Not published: {', '.join(found.missing)}"),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
