"""`tsprune rank`."""

from __future__ import annotations

from tsprune.cli.options import ByOption, JsonOption, ModelArgument, open_model
from tsprune.cli.output import print_frame, print_json, records


def rank(
    model: ModelArgument,
    by: ByOption = "stable_rank",
    as_json: JsonOption = False,
) -> None:
    """Rank the attention heads without data; rank 1 is the first of its sublayer to be pruned."""
    from tsprune.scores import rank as run_rank

    frame = run_rank(open_model(model, None), by)
    if as_json:
        print_json(records(frame))
    else:
        scores = dict.fromkeys((by, "stable_rank", "stable_rank_effective"))
        shown = frame.assign(**{by: frame["score"]})
        print_frame(shown, f"{model}: heads by {by}", ["address", *scores, "rank"])
