"""`tsprune forecast`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tsprune.cli.options import ModelArgument, Shared, option, with_shared
from tsprune.cli.output import check_table, print_frame, say, write_table
from tsprune.errors import TspruneError

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20  # rows that are printed


@with_shared(
    "data", "horizon", "freq", "season", "context", "id_column", "time_column", "target",
    "past_covariates", "model",
    "batch_size", "output",
)  # fmt: skip
def forecast_command(
    model: ModelArgument,
    output: Annotated[
        Path | None, option("Write the forecasts, all rows, to a .parquet or .csv.", "--out")
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Forecast the steps after the end of each of your series."""
    from tsprune.data.sources import data_kind

    check_table(output, "--out")
    shared.check(model, exported=True)
    if data_kind(shared.data) != "own":
        raise TspruneError(
            f"{shared.data} holds no table of your own; name a file with your series by --data"
        )
    from tsprune.evaluation.future_values import future_values

    loaded = shared.predictor(model)
    with shared.running("forecast") as options:
        table = future_values(
            loaded,
            shared.data,
            batch_size=options["batch_size"],
            progress=options["progress"],
            **shared.own,
        )
    if output is not None:
        write_table(table.frame, output)
    count = table.frame["item_id"].nunique()

    def tables() -> None:
        if output is None:
            print_frame(_dates(table.frame.head(_SHOWN)), table.title, ["item_id", *_shown(table.frame)])
        more = ""
        if output is not None:
            more = f"; written to {output}"
        elif len(table) > _SHOWN:
            more = f"; the first {_SHOWN} are shown; --out writes all"
        say(f"{count} series, {len(table)} rows{more}")

    result: dict[str, object] = {"series": count, "rows": len(table)}
    result |= {"out": output} if output is not None else {"forecasts": _plain_times(table.frame)}
    shared.report("forecast", result, tables, skipped=table.skipped, notes=table.notes)


def _shown(frame: pd.DataFrame) -> list[str]:
    targets = ["target_name"] if frame["target_name"].nunique() > 1 else []
    return [*targets, *(x for x in ("timestamp", "step", "predictions", "0.1", "0.9") if x in frame)]


def _dates(frame: pd.DataFrame) -> pd.DataFrame:
    """Times as dates, if all are at midnight."""
    if "timestamp" not in frame or (frame["timestamp"] != frame["timestamp"].dt.normalize()).any():
        return frame
    return frame.assign(timestamp=frame["timestamp"].dt.strftime("%Y-%m-%d"))


def _plain_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Times as text, which JSON can hold."""
    return frame.assign(timestamp=frame["timestamp"].astype(str)) if "timestamp" in frame else frame
