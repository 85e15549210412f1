"""Checkpoints in released shapes with random weights: what sweeps, plans and recovery of them take.

    python benchmarks/released.py                        # all figures: hours
    python benchmarks/released.py replay-bolt plan       # some of them
    python benchmarks/released.py recover-bundled --setting avx2 --threads 1

Every figure runs in a process of its own, which prints it; then follow its wall-clock time and CPU time. How
long a forecast takes does not depend on the weights, so the checkpoints are made here, in a temporary folder.
`--setting avx2` keeps the libraries to the instructions of a smaller processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chronos.chronos_bolt  # noqa: F401 - LIBRARIES counts it
import numpy as np
import torch
from measure import identical, timed
from processors import SETTINGS

import tsprune
from tsprune.anatomy import Component
from tsprune.cost.allocator import keep_freed_memory
from tsprune.data import Configuration, Suite, pocket
from tsprune.evaluation import Batch
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster
from tsprune.models.checkpoints import find
from tsprune.models.chronos_bolt import ChronosBolt
from tsprune.pruning.recovery import Recipe, _Training
from tsprune.run_options import BATCH_SIZE, MEMORY
from tsprune.sweeps import CLEAN, SweepResult, make_plan, run
from tsprune.sweeps.worker import Worker

GB = 1e9
CONTEXT = 2048  # steps, of the released checkpoints

# facts of config.json of amazon/chronos-bolt-small (48 million parameters) and -base (205 million)
BOLT = {
    "bolt-small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "bolt-base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
TIMESFM = "timesfm-2.5-200m"  # 231 million parameters; upstream's class has the size of the released one


# --- checkpoints ---------------------------------------------------------------------------------


def bolt(name: str) -> Forecaster:
    bundled = find("bundled:chronos-bolt")
    size = {**BOLT[name], "d_kv": 64, "num_decoder_layers": BOLT[name]["num_layers"]}
    forecasting = {**bundled.config["chronos_config"], "context_length": CONTEXT}
    config = {**bundled.config, **size, "chronos_config": forecasting}
    return ChronosBolt.blank(dataclasses.replace(bundled, name=name, config=config))


def timesfm(name: str) -> Forecaster:
    from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module

    network = TimesFM_2p5_200M_torch_module()
    with torch.no_grad():
        for path, parameter in network.named_parameters():
            if path.endswith(".scale"):  # of norms; at upstream's initial 0 attention contributes nothing
                parameter.fill_(1)
    return tsprune.load(network)


MAKERS: dict[str, Callable[[str], Forecaster]] = {**dict.fromkeys(BOLT, bolt), TIMESFM: timesfm}


def checkpoint(name: str, folder: Path) -> Path:
    """The checkpoint `name` in `folder`, written if it is not there."""
    path = folder / name
    if not path.exists():  # in another process: making it takes more memory than some figures
        making = multiprocessing.get_context("spawn").Process(target=_make, args=(name, path))
        making.start()
        making.join()
        if making.exitcode:
            raise SystemExit(f"{name} was not made (exit code {making.exitcode})")
    return path


def _make(name: str, path: Path) -> None:
    torch.manual_seed(0)
    MAKERS[name](name).save(path)


def loaded(name: str, folder: Path) -> Forecaster:
    return tsprune.load(str(checkpoint(name, folder)), device="cpu")


def weight_bytes(model: Forecaster) -> int:
    return sum(parameter.nbytes for parameter in model.module.parameters())


# --- replay --------------------------------------------------------------------------------------


def long_windows(count: int) -> Suite:
    """One configuration of `count` windows of the longest history."""
    rng = np.random.default_rng(0)
    series = rng.standard_normal((count, CONTEXT + 48)).cumsum(1).astype(np.float32)
    contexts = [x[:CONTEXT] for x in series]
    return Suite(
        "long", (Configuration("long/H/short", "H", 48, 24, contexts, series[:, CONTEXT:], np.arange(count)),)
    )


def heads_of_sublayers(model: Forecaster, every: int, most: int = 1000) -> list[Ablation]:
    """The first `most` heads of every so many-th attention sublayer, each alone."""
    sites = [site for site, described in model.anatomy.sites() if described.heads][every // 2 :: every]
    chosen = (c for c in model.anatomy.components("head") if _site(c) in sites and (c.head or 0) < most)
    return [Ablation((c,)) for c in chosen]


def _site(head: Component) -> Component:
    return dataclasses.replace(head, head=None)


def replay(name: str, folder: Path, *, every: int, least: float, most: int = 1000, windows: int = 20) -> None:
    """Replay against a plain loop, which takes the same time for every ablation, so a few are timed."""
    model, suite = loaded(name, folder), long_windows(windows)
    whole, heads = len(model.anatomy.components("head")), heads_of_sublayers(model, every, most)
    some = heads[:: max(1, len(heads) // 4)]
    model.forecast(suite.configurations[0].contexts[:2], 48)  # imports and allocators
    clean, _ = sweep_seconds(model, suite, [], replay=True)
    seconds, replayed = sweep_seconds(model, suite, heads, replay=True)
    peak = peak_bytes()
    plain_seconds, plain = sweep_seconds(model, suite, some, replay=False)
    each, alone = (seconds - clean) / len(heads), plain_seconds / (len(some) + 1)
    ratio = alone * (whole + 1) / (clean + each * whole)
    same = identical(plain, of_these(replayed, some))
    limit = weight_bytes(model) + MEMORY + GB
    print(
        f"{name}: {len(heads)} of {whole} heads x {windows} windows x {CONTEXT} steps: {each:.2f} CPU s each "
        f"with replay beside {clean:.2f} s once, {alone:.2f} s without ({len(some)} of them); ratio for all "
        f"heads {ratio:.2f} (at least {least}); results {'identical' if same else 'DIFFER'}; peak "
        f"{peak / GB:.2f} GB (at most {limit / GB:.2f} GB: weights, budget and 1 GB)"
    )


def sweep_seconds(
    model: Forecaster, windows: Suite, ablations: Sequence[Ablation], *, replay: bool
) -> tuple[float, SweepResult]:
    return timed(lambda: run(model, windows, ablations, replay=replay))


def of_these(result: SweepResult, ablations: Sequence[Ablation]) -> SweepResult:
    kept = {CLEAN, *ablations}
    scores = {ablation: scores for ablation, scores in result.scores.items() if ablation in kept}
    return dataclasses.replace(result, scores=scores)


def sweep_of_pocket(name: str, folder: Path, *, every: int, most: int, batches: int) -> None:
    """Some heads on every `batches`-th batch of the embedded suite, extrapolated by steps of history."""
    model, windows = loaded(name, folder), pocket()
    whole, some = len(model.anatomy.components("head")), heads_of_sublayers(model, every, most)
    plan = make_plan(model, windows, some, batch_size=BATCH_SIZE)
    worker = Worker(model, None, frozenset())
    chosen = plan.units()[batches // 2 :: batches]
    clean = ablated = 0.0
    for unit in chosen:
        batch, truth = plan.batches[unit.batch], plan.truth(unit)
        alone = timed(lambda: worker.outcome(batch, truth, (CLEAN,)))[0]  # noqa: B023
        clean += alone
        ablated += timed(lambda: worker.outcome(batch, truth, (CLEAN, *some)))[0] - alone  # noqa: B023
    share = sum(_steps(plan.batches[unit.batch]) for unit in chosen) / sum(map(_steps, plan.batches))
    seconds = (clean + ablated * whole / len(some)) / share
    print(
        f"{name}: {len(some)} of {whole} heads on {share:.0%} of pocket: {clean:.0f} CPU s unablated, "
        f"{ablated:.0f} s ablated, so {clean / share:.0f} CPU s a pass and {seconds / 60:.0f} CPU min for "
        f"all heads on {torch.get_num_threads()} thread (at most 90: 45 min of two cores)"
    )


def _steps(batch: Batch) -> int:
    return sum(map(len, batch.views))


# --- plans and recovery --------------------------------------------------------------------------


def plan(name: str, folder: Path, *, saving: float = 0.2) -> None:
    """A plan for a saving and the pruned checkpoint."""
    model = loaded(name, folder)
    start, cpu = time.perf_counter(), time.process_time()
    ended: dict[str, str] = {}

    def clock() -> str:
        return f"{time.perf_counter() - start:.1f} s ({time.process_time() - cpu:.1f} CPU s)"

    chosen = tsprune.plan(model, saving=saving, progress=lambda stage, *_: ended.update({stage: clock()}))
    stages = ", ".join(f"{stage} until {seconds}" for stage, seconds in ended.items())
    before = peak_bytes()
    tsprune.prune(model, chosen).save(folder / "smaller")
    print(
        f"{name}: {chosen}; {stages}; all {clock()} (at most 20 s for first prices, 240 s for all); peak of "
        f"the search {(before - LIBRARIES) / GB:.2f} GB without libraries (records of up to 2 GB)"
    )


def memory(name: str, folder: Path) -> None:
    """Peak memory of the removal of two layers, without a search."""
    model = loaded(name, folder)
    last = len(model.anatomy.stacks[0].blocks) - 1
    tsprune.prune(model, [f"encoder.{last}", f"decoder.{last}"]).save(folder / "smaller")
    print(memory_line(model, 2.2))


def recovery(name: str, folder: Path, *, steps: int, limit: float, share: float = 1.0) -> None:
    """Recovery of a bundled model without 30 % of its parameters, of others without two layers.

    share : of the steps that are made; the rest is extrapolated
    """
    if name.startswith("bundled:"):
        model = tsprune.load(name, device="cpu")
        small = tsprune.prune(model, tsprune.plan(model, saving=0.3, objective="parameters"))
    else:  # with random weights every plan is as good
        model = loaded(name, folder)
        last = len(model.anatomy.stacks[0].blocks) - 1
        small = tsprune.prune(model, [f"encoder.{last}", f"decoder.{last}"])
    made = max(2, round(share * steps))
    with clocked(_Training, "_step", "score") as clocks:
        recovered = tsprune.recover(small, model, steps=made, patience=made)
    (step, cpu_step), (check, cpu_check) = (tuple(np.mean(clocks[x], axis=0)) for x in ("_step", "score"))
    checks = Recipe(steps).checks(steps, 0) + 1
    whole, cpu = (steps * s + checks * c for s, c in ((step, check), (cpu_step, cpu_check)))
    assert recovered.origin is not None
    account = recovered.origin.recovery
    assert account is not None
    print(
        f"{name}: {small.parameter_count / model.parameter_count:.0%} of the parameters; {made} steps of "
        f"{step:.2f} s ({cpu_step:.2f} CPU s), checks of {check:.1f} s ({cpu_check:.1f} CPU s); {steps} "
        f"steps and {checks} checks take {whole:.0f} s, {cpu:.0f} CPU s on "
        f"{torch.get_num_threads()} threads (at most {limit:.0f} s); {account.metric} "
        f"{account.score_before:.4f} -> {account.score_after:.4f}"
    )
    moments = 2 * sum(p.nbytes for p in small.module.parameters())  # at most: Muon has one, AdamW two
    print(memory_line(model, 4, moments))


@contextmanager
def clocked(kind: type, *names: str) -> Iterator[dict[str, list[tuple[float, float]]]]:
    """Wall-clock and CPU seconds of every call of some methods."""
    originals = {name: getattr(kind, name) for name in names}
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in names}

    def timed_method(name: str) -> Callable[..., Any]:
        def method(*args: Any) -> Any:
            start = time.perf_counter()
            seconds, result = timed(lambda: originals[name](*args))
            clocks[name].append((time.perf_counter() - start, seconds))
            return result

        return method

    try:
        for name in names:
            setattr(kind, name, timed_method(name))
        yield clocks
    finally:
        for name, original in originals.items():
            setattr(kind, name, original)


def memory_line(model: Forecaster, times: float, more: int = 0) -> str:
    """The peak of this process, less the libraries, in units of the model's weights."""
    used, weights = peak_bytes() - LIBRARIES, weight_bytes(model)
    beside = f" beside {more / GB:.2f} GB of optimiser state" if more else ""
    return (
        f"  memory: peak {used / GB:.2f} GB without libraries, weights {weights / GB:.2f} GB; "
        f"{(used - more) / weights:.2f} times the weights{beside} (at most {times})"
    )


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


# --- the command line ----------------------------------------------------------------------------

FIGURES: dict[str, Callable[[Path, float], None]] = {
    "replay-bolt": lambda folder, _: replay("bolt-base", folder, every=5, least=2.5),
    "replay-timesfm": lambda folder, _: replay(TIMESFM, folder, every=5, most=3, least=1.6, windows=8),
    "sweep": lambda folder, _: sweep_of_pocket("bolt-base", folder, every=6, most=2, batches=4),
    "plan": lambda folder, _: plan("bolt-small", folder),
    "prune": lambda folder, _: memory("bolt-base", folder),
    "recover": lambda folder, share: recovery("bolt-small", folder, steps=100, limit=480, share=share),
    "recover-bundled": lambda folder, share: recovery(
        "bundled:chronos-bolt", folder, steps=800, limit=360, share=share
    ),
    "recover-base": lambda folder, share: recovery(
        "bolt-base", folder, steps=100, limit=float("inf"), share=min(share, 0.02)
    ),
}
LIBRARIES = peak_bytes()


def machine() -> str:
    """Instructions that torch uses, cores, and measured speed, for one thread."""
    matrix = torch.ones(1024, 1024)
    seconds = min(_seconds(lambda: matrix @ matrix) for _ in range(5))
    return (
        f"machine: {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} torch threads, {2 * 1024**3 / seconds / 1e9:.0f} GFLOP/s in float32"
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("figures", nargs="*", default=[*FIGURES], help=f"some of: {', '.join(FIGURES)}")
    parser.add_argument(
        "--setting", choices=["own", "avx2"], default="own", help="instructions that are used"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps the checkpoints; by default they are temporary")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of recovery that are made")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    options = parser.parse_args()
    if unknown := set(options.figures) - set(FIGURES):
        parser.error(f"unknown figures {', '.join(sorted(unknown))}; some of: {', '.join(FIGURES)}")
    if options.here:
        keep_freed_memory()
        torch.set_num_threads(options.threads)
        print(machine(), flush=True)
        FIGURES[options.figures[0]](options.folder, options.share)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        codes = [in_process(name, options, folder) for name in options.figures]
    return max(codes)


def in_process(name: str, options: argparse.Namespace, folder: Path) -> int:
    """Runs one figure in a new process; its exit code."""
    command = [sys.executable, __file__, name, "--here", "--folder", str(folder)]
    threads = str(options.threads)
    variables = {**os.environ, **SETTINGS[options.setting], "OMP_NUM_THREADS": threads}
    print(f"{name} ({options.setting}, {threads} threads)", flush=True)
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--threads", threads, "--share", str(options.share)], env=variables)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    print(
        f"  {time.perf_counter() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU s, "
        "with the making of checkpoints",
        flush=True,
    )
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
