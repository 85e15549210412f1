"""`tsprune latency`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import COUNT, DeviceOption, JsonOption, ModelArgument, open_model
from tsprune.cli.output import err, out, print_frame, print_json, records
from tsprune.errors import TspruneError, printable

if TYPE_CHECKING:
    import pandas as pd


MOST_VALUES = 10**8  # of a batch, history and forecast; 400 MB


def latency_command(
    model: ModelArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="What to time it against, named alike.")],
    batch: Annotated[
        list[int], typer.Option(min=1, max=COUNT, help="Series forecast together; repeatable.")
    ] = [1, 64],  # noqa: B006
    context: Annotated[int, typer.Option(min=1, max=COUNT, help="Steps of history.")] = 512,
    horizon: Annotated[int, typer.Option(min=1, max=COUNT, help="Steps to forecast.")] = 64,
    rounds: Annotated[
        int, typer.Option(min=2, max=COUNT, help="Timed forecasts of each, taken in turns.")
    ] = 30,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="torch threads; by default as many as torch takes.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time two models against each other, in turns: milliseconds with intervals, FLOPs, memory."""
    from tsprune.cost.latency import DTYPES, compare_latency, machine
    from tsprune.cost.threads import thread_count

    if dtype not in DTYPES:
        raise TspruneError(f"unknown dtype {dtype!r}; one of: {', '.join(DTYPES)}")
    if max(batch) * (context + horizon) > MOST_VALUES:
        raise TspruneError(
            f"a batch of {max(batch)} series with {context} steps of history and {horizon} to forecast has "
            f"more than {MOST_VALUES:,} values; take fewer"
        )
    loaded = [open_model(name, device, dtype=DTYPES[dtype]) for name in (model, other)]
    with thread_count(threads):
        frame = compare_latency(*loaded, batches=batch, context=context, horizon=horizon, rounds=rounds)
        where = machine()
    frame = frame.assign(model=[(model, other)[i % 2] for i in range(len(frame))])
    if as_json:
        asked = {"context": context, "horizon": horizon, "rounds": rounds, "dtype": dtype}
        print_json({"machine": where, **asked, "rows": records(frame)})
        return
    _print(frame, f"context {context}, horizon {horizon}, {dtype}, {rounds} rounds")
    note = f"{where}. Intervals: 95 %, of the median. Ratio: {other} / {model}; below 1 is faster."
    out.print(printable(note), markup=False, highlight=False, soft_wrap=True)
    if any(frame["ratio_low"].lt(1) & frame["ratio_high"].gt(1)):
        err.print("The interval of a ratio holds 1: no difference was measured there.")


def _print(frame: pd.DataFrame, title: str) -> None:
    """Two tables, and what the FLOPs promised."""
    shown = ["model", "batch", "ms", "ms_low", "ms_high", "ratio", "ratio_low", "ratio_high"]
    print_frame(frame, title, shown)
    print_frame(frame, "sizes", ["model", "batch", "parameters", "gflops", "weights_mb", "peak_mb"])
    rows = frame.to_dict("records")
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        faster, flops = 1 / after["ratio"], before["gflops"] / after["gflops"]
        said = f"batch {after['batch']}: x {faster:.2f} as fast with x {1 / flops:.2f} of the FLOPs"
        out.print(f"{said}: {faster / flops:.2f} of what these promise.", highlight=False, soft_wrap=True)
