"""`tsprune rank`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsprune.cli.options import ByOption, KindOption, ModelArgument, Shared, require_score, with_shared
from tsprune.cli.output import out, print_frame, say


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from tsprune.scores import SCORES

    for score in SCORES.values():
        data = "no data" if score.needs == "weights" else "on windows"
        ends = "highest" if score.redundant == "high-to-low" else "lowest"
        out.print(f"[bold]{score.name}[/] ({', '.join(score.kinds)}; {data}; {ends} is redundant)")
        say(f"    {score.about}")
    raise typer.Exit


@with_shared("suite", "model", "batch_size", "memory", "store", "output")
def rank_command(
    model: ModelArgument,
    by: ByOption = "stable_rank",
    kind: KindOption = "head",
    list_scores: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="Describe all scores, and exit.")
    ] = False,
    *,
    shared: Shared,
) -> None:
    """Rank heads, MLPs, attention sublayers or layers by a score.

    Rank 1 is the most redundant: the first of its sublayer (of its stack, for other kinds) to be pruned.
    Most scores need no data, or a few windows of each configuration; exact effects (mase_change, ...)
    ablate every component on all windows.
    """
    require_score(by, kind)
    shared.check(model)
    from tsprune.evaluation.single_series import unmeasured
    from tsprune.scores import SCORES, rank

    suite = None if SCORES.named(by).needs == "weights" else shared.suite
    loaded = shared.load(model)
    with shared.running("rank") as options:
        frame = rank(loaded, suite, by=by, kind=kind, **options)  # type: ignore[arg-type]

    def tables() -> None:
        stable = [name for name in ("stable_rank", "stable_rank_effective") if name in frame]
        where = "" if suite is None else f" on {suite.name}"
        shown = ["address", *dict.fromkeys((by, *stable)), "rank"]
        print_frame(frame.assign(**{by: frame["score"]}), f"{model}{where}: {kind}s by {by}", shown)

    notes = () if suite is None else unmeasured(loaded, suite)
    shared.report("rank", {"by": by, "components": frame}, tables, notes=notes)
