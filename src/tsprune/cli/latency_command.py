"""`tsprune latency`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import ModelArgument, Shared, integer, with_shared
from tsprune.cli.output import note, print_frame, say
from tsprune.errors import TspruneError

if TYPE_CHECKING:
    import pandas as pd

MOST_VALUES = 10**8  # of a batch, history and forecast; 400 MB


@with_shared("model", "output")
def latency_command(
    model: ModelArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The model to compare it with, named alike.")],
    batch: Annotated[list[int], integer("Series forecast together; repeatable.")] = [1, 64],  # noqa: B006
    context: Annotated[int, integer("Steps of history.")] = 512,
    horizon: Annotated[int, integer("Steps to forecast.")] = 64,
    rounds: Annotated[int, integer("Timed forecasts of each, taken in turns.", least=2)] = 30,
    threads: Annotated[
        int | None, integer("torch threads; by default as many as torch takes.", most=1024)
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Time two models against each other, in turns: milliseconds with intervals, FLOPs, memory."""
    if max(batch) * (context + horizon) > MOST_VALUES:
        raise TspruneError(
            f"a batch of {max(batch)} series with {context} steps of history and {horizon} to forecast has "
            f"more than {MOST_VALUES:,} values; take fewer"
        )
    shared.check(model, other, exported=True)
    from tsprune.cost.latency import compare_latency, machine
    from tsprune.cost.threads import thread_count

    loaded = [shared.predictor(name) for name in (model, other)]
    with thread_count(threads):
        frame = compare_latency(*loaded, batches=batch, context=context, horizon=horizon, rounds=rounds)
        where = machine()
    frame = frame.assign(model=[(model, other)[i % 2] for i in range(len(frame))])

    def tables() -> None:
        _print(frame, f"context {context}, horizon {horizon}, {shared.dtype}, {rounds} rounds")
        say(f"{where}. Intervals: 95 %, of the median. Ratio: {other} / {model}; below 1 is faster.")
        if not shared.quiet and any(frame["time_ratio_low"].lt(1) & frame["time_ratio_high"].gt(1)):
            note("The interval of a ratio holds 1: no difference was measured there.")

    result = {"machine": where, "context": context, "horizon": horizon, "rounds": rounds}
    shared.report("latency", {**result, "dtype": shared.dtype, "timings": frame}, tables)


def _print(frame: pd.DataFrame, title: str) -> None:
    """Two tables, and the measured speed-up beside that of the FLOPs."""
    print_frame(
        frame,
        title,
        ["model", "batch", "ms", "ms_low", "ms_high", "time_ratio", "time_ratio_low", "time_ratio_high"],
    )
    print_frame(frame, "sizes", ["model", "batch", "parameters", "gflops", "weights_mb", "peak_mb"])
    rows = frame.to_dict("records")
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        faster, flops = 1 / after["time_ratio"], before["gflops"] / after["gflops"]
        share = f"{faster / flops:.2f} of the speed-up that FLOPs alone promise"
        promised = f" with {1 / flops:.2f} times the FLOPs: {share}"
        known = flops == flops  # not those of an exported model
        say(f"batch {after['batch']}: {faster:.2f} times as fast{promised if known else ''}.")
