"""`tsprune verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.choices import SEASONAL_NAIVE
from tsprune.cli.options import ModelArgument, Shared, decimal, option, with_shared
from tsprune.cli.output import print_frame, say
from tsprune.errors import TspruneError
from tsprune.files import existing_file

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.models.forecaster import Forecaster
    from tsprune.verification import RankComparison, ScoreComparison

_SHOWN = 10  # heads beyond the tolerance that are listed


@with_shared("suite", "model", "batch_size", "output")
def verify_command(
    model: ModelArgument,
    against: Annotated[
        Path | None, option("CSV of stable ranks: checkpoint, attention, layer, head, stable_rank.")
    ] = None,
    scores: Annotated[
        Path | None, option("CSV of published scores of GIFT-Eval: config, model, MASE, CRPS; needs --data.")
    ] = None,
    name: Annotated[
        str | None, option("Which model of the tables it is; by default, by its name.", "--model")
    ] = None,
    tolerance: Annotated[float, decimal("Relative difference of stable ranks that counts as equal.")] = 1e-3,
    score_tolerance: Annotated[float, decimal("Relative difference of scores that counts as equal.")] = 0.02,
    *,
    shared: Shared,
) -> None:
    """Compare a checkpoint with published numbers, or test an exported model; exit code 1 if they disagree.

    Compares the stable rank of every head, and with --scores MASE and CRPS per configuration. Of an exported
    folder: the SHA-256 of its files, and its forecasts of stored series with those of its model.
    """
    from tsprune.deployment.description import is_export

    if against is None and scores is None and is_export(model):
        _test(model, shared)
        return
    if against is None and scores is None:
        raise TspruneError("nothing to verify: name a table with --against or --scores")
    if scores is not None and shared.data == "pocket":
        raise TspruneError("--scores needs --data, the root folder of a GIFT-Eval copy")
    if against is not None and model == SEASONAL_NAIVE:
        raise TspruneError(f"{SEASONAL_NAIVE} has no heads; leave --against out")
    for path in filter(None, (against, scores)):
        existing_file(path, "table")
    shared.check(*([] if model == SEASONAL_NAIVE else [model]))
    from tsprune.verification import RANK_COLUMNS, SCORE_COLUMNS, compare_stable_ranks, read_table

    rank_table = None if against is None else read_table(against, RANK_COLUMNS)
    score_table = None if scores is None else read_table(scores, SCORE_COLUMNS)
    loaded = None if model == SEASONAL_NAIVE else shared.load(model)
    ranks, found = None, None
    skipped: list[tuple[str, str]] = []
    if rank_table is not None and loaded is not None:
        ranks = compare_stable_ranks(loaded, rank_table, name, tolerance=tolerance)
    if score_table is not None:
        found, skipped = _compare(loaded, score_table, name or model, score_tolerance, shared)
    holds = all(part.holds for part in (ranks, found) if part is not None)

    def tables() -> None:
        if ranks is not None:
            _print_ranks(model, ranks)
        if found is not None:
            _print_scores(model, found)

    shared.report("verify", {"holds": holds, **_result(ranks, found)}, tables, skipped=skipped)
    if not holds:
        raise typer.Exit(1)


def _test(folder: str, shared: Shared) -> None:
    """The self-test of an exported model."""
    from tsprune.deployment import verify_export

    found = verify_export(folder, device=shared.device)

    def tables() -> None:
        if found.wrong:
            say(f"{folder}: changed or missing: {', '.join(found.wrong)}; export the model again")
            return
        say(
            f"Self-test of {folder}: {'holds' if found.holds else 'does not hold'}. Its files are unchanged; "
            f"quantiles are within {found.distance:.1e} of the model's (allowed: {found.allowed:.1e})"
        )

    result = {"holds": found.holds, "wrong_files": found.wrong, "distance": found.distance}
    shared.report("verify", {**result, "allowed": found.allowed}, tables)
    if not found.holds:
        raise typer.Exit(1)


def _compare(
    model: Forecaster | None, published: pd.DataFrame, name: str, tolerance: float, shared: Shared
) -> tuple[ScoreComparison, list[tuple[str, str]]]:
    """Scores (of Seasonal Naive without a model) beside the published ones, and the windows left out."""
    from tsprune.evaluation import evaluate
    from tsprune.verification import compare_scores, model_in_table

    which = model_in_table(name, published["model"].astype(str).unique().tolist())
    with shared.running("evaluate") as options:
        table = evaluate("seasonal-naive" if model is None else model, shared.suite, **options)
    return compare_scores(table.frame, published, which, tolerance=tolerance), list(table.skipped)


def _result(ranks: RankComparison | None, scores: ScoreComparison | None) -> dict[str, object]:
    """The comparisons that were made, for JSON."""
    result: dict[str, object] = {}
    if ranks is not None:
        result["stable_ranks"] = {
            "model": ranks.model,
            "holds": ranks.holds,
            "tolerance": ranks.tolerance,
            "heads_compared": len(ranks.heads),
            "heads_total": ranks.total,
            "heads_wrong": len(ranks.wrong),
            "worst": ranks.worst.to_dict(),
            "rank_correlation": ranks.correlation,
            "explanation": ranks.explanation or None,
            "heads": ranks.heads,
        }
    if scores is not None:
        result["scores"] = {
            "model": scores.model,
            "holds": scores.holds,
            "tolerance": scores.tolerance,
            "configurations": scores.configurations,
            "not_published": scores.missing,
        }
    return result


def _print_ranks(model: str, found: RankComparison) -> None:
    if not found.holds:
        title = f"{model}: heads that differ from {found.model}, worst first"
        print_frame(found.wrong.head(_SHOWN), title)
    worst = found.worst
    say(
        f"Stable ranks of {found.model}: {'holds' if found.holds else 'does not hold'}. "
        f"{len(found.heads) - len(found.wrong)} of {len(found.heads)} heads within "
        f"{100 * found.tolerance:g} % ({found.total} in these sublayers); worst {worst['address']}, "
        f"{worst['stable_rank']:.4f} instead of {worst['reference']:.4f} "
        f"({100 * worst['difference']:.2g} %); rank correlation {found.correlation:.4f}"
    )
    if found.explanation:
        say(found.explanation)


def _print_scores(model: str, found: ScoreComparison) -> None:
    print_frame(found.configurations, f"{model} beside the published scores of {found.model}")
    count = len(found.configurations)
    say(
        f"Scores of {found.model}: {'holds' if found.holds else 'does not hold'}. "
        f"{count - len(found.wrong)} of {count} "
        f"configurations within {100 * found.tolerance:g} % in MASE and CRPS"
    )
    if found.missing:
        say(f"Not published: {', '.join(found.missing)}")
