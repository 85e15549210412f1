"""`tsprune heads-at`."""

from __future__ import annotations

from tsprune.cli.options import (
    ByOption,
    MaxLossOption,
    MetricOption,
    ModelArgument,
    Shared,
    require_score,
    with_shared,
)
from tsprune.cli.output import print_frame


@with_shared("suite", "model", "batch_size", "memory", "store", "output")
def heads_at_command(
    model: ModelArgument,
    max_loss: MaxLossOption = 0.01,
    by: ByOption = "stable_rank",
    metric: MetricOption = "MASE",
    *,
    shared: Shared,
) -> None:
    """How many heads of each sublayer must stay for a loss of at most 1 % (heads@1pp), or another one.

    With --store, finished work is kept as it is done, and a run that was stopped goes on where it was.
    """
    require_score(by, "head")
    shared.check(model)
    suite = shared.suite
    from tsprune.pruning import heads_at

    with shared.running("heads-at") as options:
        loaded = shared.load(model)
        table = heads_at(loaded, suite, max_loss=max_loss, by=by, metric=metric, **options)
    shared.report(
        "heads-at",
        {"max_loss": max_loss, "sublayers": table.frame},
        lambda: print_frame(table.frame, table.title),
        skipped=table.skipped,
        failed=table.failed,
        notes=table.notes,
    )
