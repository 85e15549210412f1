"""`tsprune explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import (
    COUNT,
    ConfigsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    open_model,
    open_suite,
)
from tsprune.cli.output import err, print_frame, print_json, print_skipped, progress_bar, records
from tsprune.errors import TspruneError
from tsprune.files import check_files, output_folder

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.explain import Explanation
    from tsprune.models.forecaster import Forecaster


def explain_command(
    model: ModelArgument,
    head: Annotated[
        str | None, typer.Option(help="Everything about this one head, e.g. decoder.3.cross.head.5.")
    ] = None,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    windows: Annotated[
        int, typer.Option(min=1, max=COUNT, help="Windows of each configuration that are used.")
    ] = 16,
    effects: Annotated[
        bool, typer.Option("--effects/--no-effects", help="Also ablate heads (takes most of the time).")
    ] = True,
    chaotic: Annotated[
        bool, typer.Option("--chaos/--no-chaos", help="Also forecast chaotic trajectories, as copiers do.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="A page with pictures (NAME.html), or a folder that every table is written to, as CSV.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=COUNT,
            help="Paths drawn per window by models that sample; by default 9, and 5 by Chronos-T5.",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What heads attend to, copy, write and cost; how the residual stream grows into a forecast."""
    from tsprune.data import chaos
    from tsprune.explain import EXPLAIN_SAMPLES, STEPWISE_SAMPLES, overview
    from tsprune.models.forecaster import drawing

    suite = open_suite(data, configs)
    as_page = out is not None and out.suffix.lower() == ".html"
    if out is not None:
        if as_page:
            check_files(out)
        else:
            output_folder(out)
    opened = open_model(model, device)
    loaded = drawing(opened, samples, usual=EXPLAIN_SAMPLES, of_tokens=STEPWISE_SAMPLES)
    if head is not None:
        _check_head(loaded, head)
    with progress_bar("explain") as update:
        found = overview(
            loaded,
            suite,
            per_configuration=windows,
            effects=effects,
            trajectories=chaos() if chaotic else None,
            seed=seed,
            progress=lambda _step, done, total: update(done, total),
        )
    if out is not None:
        _write_page(found, out) if as_page else _write(found, out)
    if as_json:
        tables = {"heads": found.heads} if head is not None else found.tables()
        chosen = {name: _of_head(frame, head) for name, frame in tables.items()}
        print_json({name: records(frame) for name, frame in chosen.items()})
        return
    if head is not None:
        _print_head(found, head)
    else:
        _print_model(found, f"{model} on {suite.name}")
    print_skipped(list(found.skipped))


def _check_head(model: Forecaster, address: str) -> None:
    if [c.kind for c in model.anatomy.select(address)] != ["head"]:
        raise TspruneError(f"{address!r} is no head; one looks like decoder.3.cross.head.5")


def _of_head(frame: pd.DataFrame, head: str | None) -> pd.DataFrame:
    return frame if head is None else frame[frame["address"] == head]


def _write(found: Explanation, folder: Path) -> None:
    from tsprune.atomic import write_whole

    tables = {name: frame for name, frame in found.tables().items() if len(frame)}
    for name, frame in tables.items():
        write_whole(folder / f"{name}.csv", frame.to_csv(index=False).encode())
    err.print(f"{len(tables)} tables in {folder}", markup=False, highlight=False)


def _write_page(found: Explanation, path: Path) -> None:
    from tsprune.report import write_explanation

    write_explanation(found, path)
    err.print(f"page: {path}", markup=False, highlight=False)


def _print_head(found: Explanation, head: str) -> None:
    import pandas as pd

    row = found.heads[found.heads["address"] == head].iloc[0]
    names = [n for n in row.index if not n.endswith(("_low", "_high", "_uniform"))][5:]
    table = pd.DataFrame(
        [
            {"measure": n, "value": row[n], **{c: row.get(f"{n}_{c}") for c in ("low", "high", "uniform")}}
            for n in names
        ]
    )
    print_frame(table, head)
    profile = found.profile[found.profile["address"] == head].nlargest(8, "mass")
    print_frame(profile, "where it looks: time steps back", ["lag", "mass", "uniform"])


def _print_model(found: Explanation, title: str) -> None:
    # two tables, as one is wider than a terminal
    attended = ["sharpness", "effective_keys", "lag", "period_share", "period_share_uniform"]
    print_frame(found.heads, f"{title}: what heads attend to", ["address", *attended])
    written = ["stable_rank", "followed_score", "size", "mase", "parroting"]
    present = [name for name in written if name in found.heads]
    print_frame(found.heads, "what heads are, copy, write and cost", ["address", *present])
    for score, part in found.kernel[found.kernel["group"] == "all"].groupby("score", sort=False):
        columns = ["bandwidth", "rho", "low", "high", "p_value", "count"]
        print_frame(part, f"does {score} tell the bandwidth? Spearman's rho over heads, 95 %", columns)
    print_frame(found.residual, "residual stream", ["stack", "layer", "norm", "update", "cosine"])
    print_frame(found.lens, "what every layer would forecast", _means(found.lens))
    if len(found.attribution):
        largest = found.attribution.nlargest(10, "size")
        print_frame(largest, "who wrote the forecast", ["part", "share", "low", "high", "size"])
    if len(found.mechanism):
        columns = ["claim", "statement", "value", "low", "high", "verdict"]
        print_frame(found.mechanism, "does the paper's third mechanism hold?", columns)
    if len(found.by_share):
        for trait, part in found.by_share.groupby("trait", sort=False):
            columns = ["percent", "sharp", "diffuse", "excess", "low", "high"]
            print_frame(part, f"{trait} without the sharpest heads, against as many random ones", columns)

    if len(found.chaos):
        beside = found.chaos.pivot(index="forecaster", columns="measure", values="mean")
        ordered = beside.loc[found.chaos["forecaster"].unique(), found.chaos["measure"].unique()]
        print_frame(ordered.reset_index(), "on chaotic trajectories, over the true future's (error: MASE)")


def _means(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if not name.endswith(("_low", "_high"))]
