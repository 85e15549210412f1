"""`tsprune sweep`."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from tsprune.choices import MODES
from tsprune.cli.options import KindOption, ModelArgument, Shared, choice, decimal, option, with_shared
from tsprune.cli.output import as_duration, print_frame, say
from tsprune.errors import TspruneError
from tsprune.extras import install

if TYPE_CHECKING:
    from tsprune.sweeps import SweepCost
    from tsprune.sweeps.cluster import RayExecutor


@with_shared("suite", "model", "batch_size", "memory", "store", "output")
def sweep_command(
    model: ModelArgument,
    kind: KindOption = "head",
    components: Annotated[list[str] | None, option("Only these addresses or patterns; repeatable.")] = None,
    mode: Annotated[str, choice(MODES, text="Values that outputs are replaced by.")] = "zero",
    dry_run: Annotated[
        bool, option("Only count the work, and estimate its time and memory.", "--dry-run")
    ] = False,
    ray: Annotated[
        str | None,
        option(
            "Work on a Ray cluster: its address, auto (one that runs), or local (on this machine).",
            metavar="ADDRESS",
        ),
    ] = None,
    worker_cpus: Annotated[float, decimal("With --ray: CPUs of one worker.")] = 1.0,
    worker_gpus: Annotated[float, decimal("With --ray: GPUs of one worker; 0.5 lets two share one.")] = 0.0,
    screen: Annotated[
        bool, option("Only estimate the damage, from gradients: much faster.", "--screen")
    ] = False,
    *,
    shared: Shared,
) -> None:
    """Ablate every component of one kind alone and measure the damage.

    With --store, finished work is kept as it is done, and a run that was stopped goes on where it was.
    """
    if screen and (shared.store is not None or ray is not None or dry_run or mode != "zero"):
        raise TspruneError("--screen estimates zero ablations here: no --store, --ray, --dry-run or --mode")
    if ray is not None and find_spec("ray") is None:
        raise TspruneError(f"Ray is not installed; install it with: {install('ray')}")
    shared.check(model)
    if screen:
        _screen(model, kind, components, shared)
        return
    suite = shared.suite
    executor, device = _cluster(ray, shared.device, worker_cpus, worker_gpus)
    if dry_run:
        _estimate(model, kind, components, mode, device, shared)
        return
    from tsprune.sweeps import sweep

    # the driver of a cluster forecasts nothing
    loaded = shared.load(model, device=None if ray is None else "cpu")
    with shared.running("sweep") as options:
        table = sweep(
            loaded,
            suite,
            kind=kind,  # type: ignore[arg-type]
            components=components,
            mode=mode,  # type: ignore[arg-type]
            executor=executor,
            device=device,
            **options,
        )
    shown = ["address", "mase_change", "crps_change", "spearman_distance"]
    shared.report(
        "sweep",
        {"mode": mode, "components": table.frame},
        lambda: print_frame(table.frame, table.title, shown),
        skipped=table.skipped,
        failed=table.failed,
        notes=table.notes,
    )


def _cluster(
    address: str | None, device: str | None, cpus: float, gpus: float
) -> tuple[RayExecutor | None, str | None]:
    """The executor, and the kind of device it works on; (None, None) for this process."""
    if address is None:
        return None, None
    from tsprune.sweeps.cluster import RayExecutor

    kind, _, index = (device or ("cuda" if gpus else "cpu")).partition(":")
    if index:
        raise TspruneError(f"Ray chooses the device of each worker; write --device {kind}, without an index")
    return RayExecutor(address, kind, cpus=cpus, gpus=gpus), kind


def _estimate(
    name: str, kind: str, components: list[str] | None, mode: str, device: str | None, shared: Shared
) -> None:
    """Counts the work; makes no store that is not there."""
    from tsprune.sweeps import Store, estimate, make_plan, single_ablations

    model = shared.load(name, device=None if device is None else "cpu")
    ablations = single_ablations(
        model,
        kind,  # type: ignore[arg-type]
        components=components,
        mode=mode,  # type: ignore[arg-type]
        seed=shared.seed,
    )
    there = shared.store is not None and shared.store.exists()
    with Store(shared.store) if there and shared.store else nullcontext() as store:
        plan = make_plan(
            model,
            shared.suite,
            list(ablations.values()),
            batch_size=shared.batch_size,
            memory=shared.memory_bytes,
            store=store,
            device=device,
        )
        found = estimate(model, plan, memory=shared.memory_bytes)
    shared.report("sweep", {"estimate": found}, lambda: _print_estimate(found))


def _print_estimate(found: SweepCost) -> None:
    say(f"{found.cells} cells, {found.finished} of them in the store")
    say(f"{found.forecasts} forecasts of a batch are left to make")
    if found.forecasts:
        say(
            f"about {as_duration(found.seconds)} (h:mm:ss) one after the other on this machine, and "
            f"{found.peak_bytes / 1e9:.1f} GB of memory: estimates from {found.probed} forecasts of the "
            "longest batches"
        )


def _screen(name: str, kind: str, components: list[str] | None, shared: Shared) -> None:
    suite = shared.suite
    from tsprune.evaluation.single_series import unmeasured
    from tsprune.scores import screen
    from tsprune.sweeps import single_ablations

    model = shared.load(name)
    chosen = list(single_ablations(model, kind, components=components))  # type: ignore[arg-type]
    with shared.running("screen") as options:
        frame = screen(model, suite, components=chosen, **options)
    shown = ["address", "crps_change", "score", "rank"]
    shared.report(
        "sweep",
        {"mode": "screen", "components": frame},
        lambda: print_frame(frame, f"{name} on {suite.name}: {kind}s screened (estimates)", shown),
        notes=unmeasured(model, suite),
    )
