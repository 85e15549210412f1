"""The command line: every command is a thin call into the API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

# before torch and the hub client are imported: waiting threads that spin make few cores slow, and
# nothing here may report to anyone
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tsprune.errors import TspruneError

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Forecaster

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Find, explain and remove redundancy in pretrained time series foundation models.",
)
out, err = Console(), Console(stderr=True)

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="bundled:NAME, a directory with a checkpoint in the upstream format, or a hub id such as "
        "amazon/chronos-bolt-small.",
    ),
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="[bold]pocket[/] (real series that come with tsprune), or the root folder of a GIFT-Eval copy.",
    ),
]
ConfigsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--configs", help="Only these configurations, e.g. ett1/H/short or 'ett1/*/short'; repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Windows forecast together.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything that is random.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default CUDA if there is one.")
]


# --- what the commands share ---------------------------------------------------------------------


def _suite(data: str, configs: list[str] | None) -> Suite:
    from tsprune.data import gift_eval, pocket

    if data != "pocket":
        return gift_eval(data, configs)
    return pocket().only(configs) if configs else pocket()


def _load(name: str, device: str | None) -> Forecaster:
    from tsprune.models import load

    if device is not None:
        _check_device(device)
    return load(name, device=device)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise TspruneError(f"no device {device!r} on this machine; leave --device out, or use cpu") from None


def _folder(path: Path) -> Path:
    """`path` as a folder that can be written to, made if need be, before hours of work depend on it."""
    if path.exists() and not path.is_dir():
        raise TspruneError(f"{path} is a file; name a folder with --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TspruneError(f"cannot make the folder {path} ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise TspruneError(f"cannot write to the folder {path}")
    return path


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # where nobody watches (a log, a pipe) there is no bar
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, numbers to the last bit; what is missing or infinite is null."""
    known = frame.notna() & ~frame.isin([float("inf"), float("-inf")])
    rows: list[dict[str, Any]] = frame.astype(object).where(known, None).to_dict("records")
    return rows


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _cell(value: object) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _print_frame(frame: pd.DataFrame, title: str, columns: list[str] | None = None) -> None:
    chosen = list(frame.columns) if columns is None else columns
    table = Table(title=title, title_justify="left")
    for column in chosen:
        numeric = frame[column].dtype.kind in "fiu"
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in frame[chosen].itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    out.print(table)


def _print_skipped(skipped: list[tuple[str, str]]) -> None:
    if skipped:
        err.print(f"[yellow]{len(skipped)} left out:[/]")
        for what, reason in skipped:
            err.print(f"  {what}: {reason}", markup=False, highlight=False)


# --- commands ------------------------------------------------------------------------------------


@app.command()
def study(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Models to study; by default the bundled ones."),
    ] = None,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    output: Annotated[Path, typer.Option("--out", help="Folder for the report and results.")] = Path("study"),
    percent: Annotated[float, typer.Option(min=0, help="X of heads@Xpp.")] = 1.0,
    seed: SeedOption = 0,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the results as one static picture (.svg).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole study: what each layer and head is worth, and whether the paper's claims hold.

    Writes report.html (open it in a browser), results.parquet and manifest.json.
    """
    from tsprune.report import print_summary, write_picture, write_report
    from tsprune.study import DEFAULT_MODELS
    from tsprune.study import study as run_study
    from tsprune.study.output import write_results

    suite = _suite(data, configs)
    loaded = [_load(name, device) for name in models or DEFAULT_MODELS]
    output = _folder(output)
    with _bar("study") as update:
        order = [model.name for model in loaded]

        def report(name: str, done: int, total: int) -> None:
            # the models' sweeps differ in length; the bar treats them as equal shares
            update(order.index(name) * 1000 + round(1000 * done / total), 1000 * len(order))

        result = run_study(loaded, suite, percent=percent, seed=seed, batch_size=batch_size, progress=report)
    write_results(result, output)
    write_report(result, output / "report.html")
    if picture is not None:
        write_picture(result, picture)
    if as_json:
        from tsprune.study.output import results_table

        _print_json({"manifest": result.manifest, "results": _records(results_table(result))})
        return
    print_summary(result, out)
    out.print(f"Report: {output / 'report.html'}", highlight=False)


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model as for the other commands, or seasonal-naive.")
    ],
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for all_results.csv (GIFT-Eval's columns).")
    ] = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model as GIFT-Eval does: MASE and CRPS, also relative to Seasonal Naive."""
    from tsprune.evaluation import evaluate as run_evaluate
    from tsprune.evaluation import geometric_mean_ratios, write_all_results

    suite = _suite(data, configs)
    loaded = model if model == "seasonal-naive" else _load(model, device)
    if output is not None:
        output = _folder(output)
    with _bar("evaluate") as update:
        frame = run_evaluate(
            loaded,  # type: ignore[arg-type]
            suite,
            batch_size=batch_size,
            progress=lambda _name, done, total: update(done, total),
        )
    if output is not None:
        write_all_results(frame, output / "all_results.csv", model)
    means = geometric_mean_ratios(frame)
    if as_json:
        skipped = frame.attrs["skipped"]
        _print_json({"configurations": _records(frame), "geometric_mean": means, "skipped": skipped})
        return
    shown = ["configuration", "windows", "MASE", "CRPS", "MASE_ratio", "CRPS_ratio"]
    _print_frame(frame, f"{model} on {suite.name}", shown)
    _print_skipped(frame.attrs["skipped"])
    out.print(
        f"Relative to Seasonal Naive (geometric mean): MASE {means['MASE']:.4f}, CRPS {means['CRPS']:.4f}"
    )


@app.command()
def anatomy(
    model: ModelArgument,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[PATTERN]", help="Only addresses like this, e.g. 'decoder.*.mlp'."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the components of a model: layers, attention sublayers, heads and MLPs by address."""
    loaded = _load(model, "cpu")
    components = loaded.anatomy.components() if pattern is None else loaded.anatomy.select(pattern)
    if as_json:
        _print_json([{"address": c.address, "kind": c.kind} for c in components])
        return
    if pattern is not None:
        for component in components:
            typer.echo(component.address)
        return
    table = Table(title=f"{model} ({loaded.family})", title_justify="left")
    for column in ("stack", "layers", "attention", "heads per sublayer", "head dim", "components"):
        table.add_column(column)
    for stack in loaded.anatomy.stacks:
        sites = stack.blocks[0].attention
        table.add_row(
            stack.name,
            str(len(stack.blocks)),
            ", ".join(site.kind for site in sites),
            ", ".join(str(site.heads) for site in sites),
            str(sites[0].head_dim),
            str(sum(c.stack == stack.name for c in components)),
        )
    out.print(table)
    first = loaded.anatomy.stacks[-1]
    out.print(
        f"Addresses: {first.name}.0 (layer), {first.name}.0.{first.blocks[0].attention[0].kind}, "
        f"{first.name}.0.{first.blocks[0].attention[0].kind}.head.0, {first.name}.0.mlp; "
        f"patterns: '{first.name}.*.mlp'",
        highlight=False,
    )


@app.command()
def rank(
    model: ModelArgument,
    by: Annotated[str, typer.Option(help="stable_rank or stable_rank_effective.")] = "stable_rank",
    as_json: JsonOption = False,
) -> None:
    """Rank the attention heads without data; rank 1 is the first of its sublayer to be pruned."""
    from tsprune.scores import rank as run_rank

    frame = run_rank(_load(model, None), by)
    if as_json:
        _print_json(_records(frame))
    else:
        _print_frame(
            frame, f"{model}: heads by {by}", ["address", "stable_rank", "stable_rank_effective", "rank"]
        )


@app.command()
def sweep(
    model: ModelArgument,
    units: Annotated[str, typer.Option(help="What to ablate: head, mlp, attention or layer.")] = "head",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only these addresses or patterns; repeatable.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Replace outputs by: zero, mean or resample.")] = "zero",
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ablate every component of one kind alone and measure the damage."""
    from tsprune.sweep import sweep as run_sweep

    suite = _suite(data, configs)
    loaded = _load(model, device)
    with _bar("sweep") as update:
        frame = run_sweep(
            loaded,
            suite,
            units,  # type: ignore[arg-type]
            only=only,
            mode=mode,  # type: ignore[arg-type]
            batch_size=batch_size,
            progress=update,
        )
    if as_json:
        _print_json(_records(frame))
        return
    shown = ["address", "mase_change", "crps_change", "spearman_distance"]
    _print_frame(frame, f"{model} on {suite.name}: {units} ablated ({mode})", shown)
    _print_skipped(frame.attrs["skipped"])


@app.command(name="heads-at")
def heads_at(
    model: ModelArgument,
    percent: Annotated[float, typer.Option(min=0, help="Loss allowed, in percent.")] = 1.0,
    by: Annotated[str, typer.Option(help="Score that orders the heads.")] = "stable_rank",
    metric: Annotated[str, typer.Option(help="MASE or CRPS.")] = "MASE",
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    seed: SeedOption = 0,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many heads of each layer must stay for a loss of at most X percent (heads@Xpp)."""
    from tsprune.pruning import heads_at as run_heads_at

    suite = _suite(data, configs)
    loaded = _load(model, device)
    with _bar("heads-at") as update:
        frame = run_heads_at(
            loaded,
            suite,
            percent,
            by=by,
            metric=metric,  # type: ignore[arg-type]
            seed=seed,
            batch_size=batch_size,
            progress=update,
        )
    if as_json:
        _print_json(_records(frame))
        return
    _print_frame(frame, f"{model} on {suite.name}: heads@{percent:g}pp by {by}")
    _print_skipped(frame.attrs["skipped"])


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List model families, whether their package is installed, and the bundled checkpoints."""
    from tsprune.models import FAMILIES, bundled_names

    if as_json:
        families = [{"family": f.name, "extra": f.extra, "installed": f.installed} for f in FAMILIES]
        _print_json({"families": families, "bundled": [f"bundled:{name}" for name in bundled_names()]})
        return
    table = Table("family", "installed", "to install")
    for family in FAMILIES:
        table.add_row(
            family.name, "yes" if family.installed else "no", f'pip install "tsprune\\[{family.extra}]"'
        )
    out.print(table)
    out.print("Bundled: " + ", ".join(f"bundled:{name}" for name in bundled_names()), highlight=False)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    try:
        app()
    except TspruneError as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
