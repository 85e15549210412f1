"""`tsprune rank`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsprune.cli.options import (
    BatchOption,
    ByOption,
    ConfigsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SamplesOption,
    SeedOption,
    StoreOption,
    open_model,
    open_suite,
)
from tsprune.cli.output import out, print_frame, print_json, progress_bar, records


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from tsprune.scores import SCORES

    for score in SCORES.values():
        data = "no data" if score.needs == "weights" else "on windows"
        ends = "highest" if score.redundant == "high-to-low" else "lowest"
        out.print(f"[bold]{score.name}[/] ({', '.join(score.kinds)}; {data}; {ends} is redundant)")
        out.print(f"    {score.about}", markup=False, highlight=False)
    raise typer.Exit


def rank_command(
    model: ModelArgument,
    by: ByOption = "stable_rank",
    kind: Annotated[str, typer.Option(help="What to rank: head, mlp, attention or layer.")] = "head",
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    seed: SeedOption = 0,
    samples: SamplesOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    store: StoreOption = None,
    list_scores: Annotated[
        bool,
        typer.Option("--list", callback=_list, is_eager=True, help="Say what scores there are, and exit."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Rank heads, MLPs, attention sublayers or layers by a score.

    Rank 1 is the most redundant: the first of its sublayer (of its stack, if it is no head) to be pruned.
    Most scores need no data, or a few windows of each configuration; exact effects (mase_change, ...)
    ablate every component on all windows.
    """
    from tsprune.scores import SCORES, rank

    suite = None if SCORES.named(by).needs == "weights" else open_suite(data, configs)
    with progress_bar("rank", quiet=suite is None) as update:
        frame = rank(
            open_model(model, device, samples),
            suite,
            by=by,
            kind=kind,  # type: ignore[arg-type]
            batch_size=batch_size,
            seed=seed,
            store=store,
            progress=lambda stage, done, total: update(done, total),
        )
    if as_json:
        print_json(records(frame))
        return
    stable = [name for name in ("stable_rank", "stable_rank_effective") if name in frame]
    shown = frame.assign(**{by: frame["score"]})
    where = "" if suite is None else f" on {suite.name}"
    print_frame(shown, f"{model}{where}: {kind}s by {by}", ["address", *dict.fromkeys((by, *stable)), "rank"])
