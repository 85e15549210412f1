"""`tsprune rank`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsprune.cli.options import JsonOption, ModelArgument, open_model
from tsprune.cli.output import print_frame, print_json, records


def rank(
    model: ModelArgument,
    by: Annotated[str, typer.Option(help="stable_rank or stable_rank_effective.")] = "stable_rank",
    as_json: JsonOption = False,
) -> None:
    """Rank the attention heads without data; rank 1 is the first of its sublayer to be pruned."""
    from tsprune.scores import rank as run_rank

    frame = run_rank(open_model(model, None), by)
    if as_json:
        print_json(records(frame))
    else:
        print_frame(
            frame, f"{model}: heads by {by}", ["address", "stable_rank", "stable_rank_effective", "rank"]
        )
