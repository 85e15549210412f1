"""`tsprune sweep`."""

from __future__ import annotations

import dataclasses
import datetime
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import (
    COUNT,
    SEED,
    BatchOption,
    ConfigsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SamplesOption,
    StoreOption,
    finite,
    open_model,
    open_suite,
)
from tsprune.cli.output import (
    out,
    print_failed,
    print_frame,
    print_json,
    print_skipped,
    progress_bar,
    records,
)
from tsprune.errors import TspruneError
from tsprune.progress import any_stage

if TYPE_CHECKING:
    import pandas as pd

    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Forecaster
    from tsprune.sweeps import SweepCost
    from tsprune.sweeps.cluster import RayExecutor


def sweep_command(
    model: ModelArgument,
    kind: Annotated[str, typer.Option(help="Components to ablate: head, mlp, attention or layer.")] = "head",
    components: Annotated[
        list[str] | None,
        typer.Option("--components", metavar="PATTERN", help="Only these addresses or patterns; repeatable."),
    ] = None,
    mode: Annotated[str, typer.Option(help="Replace outputs by: zero, mean or resample.")] = "zero",
    seed: Annotated[int, typer.Option(min=0, max=SEED, help="Of the windows that resample draws.")] = 0,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    samples: SamplesOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = None,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is to do, and estimate what it costs.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on a Ray cluster: its address, auto (one that runs), or local (on this machine).",
        ),
    ] = None,
    worker_cpus: Annotated[
        float, typer.Option(min=0, max=COUNT, callback=finite, help="With --ray: CPUs of one worker.")
    ] = 1.0,
    worker_gpus: Annotated[
        float,
        typer.Option(
            min=0,
            max=COUNT,
            callback=finite,
            help="With --ray: GPUs of one worker; 0.5 lets two share one.",
        ),
    ] = 0.0,
    memory: Annotated[
        float,
        typer.Option(
            min=0,
            max=COUNT,
            callback=finite,
            metavar="GB",
            help="Most that records of clean passes may hold; with less, more is computed.",
        ),
    ] = 2.0,
    screen: Annotated[
        bool, typer.Option("--screen", help="Only estimate the damage, from gradients: much faster.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no list of what is left out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ablate every component of one kind alone and measure the damage.

    With --store, finished work is kept as it is done, and a run that was stopped goes on where it was.
    """
    from tsprune.sweeps import Store, estimate, make_plan, single_ablations, sweep

    if screen:
        if store is not None or ray is not None or dry_run or mode != "zero":
            raise TspruneError(
                "--screen estimates zero ablations here: no --store, --ray, --dry-run or --mode"
            )
        _screen(
            open_model(model, device, samples),
            open_suite(data, configs),
            kind,
            components,
            batch_size,
            quiet=quiet,
            as_json=as_json,
        )
        return
    limit = round(memory * 1e9)
    executor, device_kind = _cluster(ray, device, worker_cpus, worker_gpus)
    suite = open_suite(data, configs)
    # the driver of a cluster forecasts nothing
    loaded = open_model(model, device if ray is None else "cpu", samples)
    if dry_run and store is not None and not store.exists():
        store = None  # nothing is made that was not asked for
    with nullcontext() if store is None else Store(store) as opened:
        if dry_run:
            ablations = single_ablations(loaded, kind, components=components, mode=mode, seed=seed)  # type: ignore[arg-type]
            plan = make_plan(
                loaded,
                suite,
                list(ablations.values()),
                batch_size=batch_size,
                store=opened,
                device=device_kind,
            )
            _print_estimate(estimate(loaded, plan, memory=limit), as_json=as_json)
            return
        with progress_bar("sweep", quiet=quiet) as update:
            frame = sweep(
                loaded,
                suite,
                kind=kind,  # type: ignore[arg-type]
                components=components,
                mode=mode,  # type: ignore[arg-type]
                seed=seed,
                batch_size=batch_size,
                progress=any_stage(update),
                store=opened,
                executor=executor,
                device=device_kind,
                memory=limit,
            )
    _print_effects(frame, f"{model} on {suite.name}: {kind} ablated ({mode})", quiet=quiet, as_json=as_json)


def _cluster(
    address: str | None, device: str | None, cpus: float, gpus: float
) -> tuple[RayExecutor | None, str | None]:
    """Who does the work, and on which kind of device; (None, None) for this process."""
    if address is None:
        return None, None
    from tsprune.sweeps.cluster import RayExecutor

    kind = (device or ("cuda" if gpus else "cpu")).partition(":")[0]
    return RayExecutor(address, kind, cpus=cpus, gpus=gpus), kind


def _print_effects(frame: pd.DataFrame, title: str, *, quiet: bool, as_json: bool) -> None:
    """The table, what was left out and what failed; then the exit code is 1."""
    if as_json:
        print_json(records(frame))
    else:
        print_frame(frame, title, ["address", "mase_change", "crps_change", "spearman_distance"])
        if not quiet:
            print_skipped(frame.attrs["skipped"])
    if frame.attrs["failed"]:
        print_failed(frame.attrs["failed"])
        raise typer.Exit(1)


def _print_estimate(found: SweepCost, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    out.print(f"{found.cells} cells, {found.finished} of them in the store", highlight=False)
    out.print(f"{found.forecasts} forecasts of a batch are left to make", highlight=False)
    if found.forecasts:
        out.print(
            f"about {datetime.timedelta(seconds=math.ceil(found.seconds))} (h:mm:ss) one after the other on "
            f"this machine, and {found.peak_bytes / 1e9:.1f} GB of memory: estimates from "
            f"{found.probed} forecasts of the longest batches",
            highlight=False,
        )


def _screen(
    model: Forecaster,
    suite: Suite,
    kind: str,
    components: list[str] | None,
    batch_size: int,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    from tsprune.scores import screen
    from tsprune.sweeps import single_ablations

    selected = list(single_ablations(model, kind, components=components))  # type: ignore[arg-type]
    with progress_bar("screen", quiet=quiet) as update:
        frame = screen(
            model,
            suite,
            components=selected,
            batch_size=batch_size,
            progress=any_stage(update),
        )
    if as_json:
        print_json(records(frame))
    else:
        shown = ["address", "crps_change", "score", "rank"]
        print_frame(frame, f"{model.name} on {suite.name}: {kind} screened (estimates)", shown)
