"""Checkpoints in released shapes with random weights: what sweeps, plans and recovery of them take.

    python benchmarks/released.py                        # all figures: hours
    python benchmarks/released.py replay-bolt plan       # some of them
    python benchmarks/released.py recover-bundled --setting avx2 --threads 1

Every figure runs in a process of its own, which prints it; then follow its wall-clock time, CPU time and peak
memory. How long a forecast takes does not depend on the weights, so the checkpoints are made here, in a
temporary folder. `--setting avx2` keeps the libraries to the instructions of a smaller processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from measure import identical, suite, timed
from processors import SETTINGS

import tsprune
from tsprune.anatomy import Component
from tsprune.cost.allocator import keep_freed_memory
from tsprune.data import Configuration, Suite
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster
from tsprune.models.checkpoints import find
from tsprune.models.chronos_bolt import ChronosBolt
from tsprune.run_options import BATCH_SIZE, MEMORY
from tsprune.sweeps import SweepResult, make_plan, run
from tsprune.sweeps.engine import SweepWork
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
    if not path.exists():
        torch.manual_seed(0)
        MAKERS[name](name).save(path)
    return path


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


def replay(name: str, folder: Path, *, every: int, least: float, most: int = 1000) -> None:
    """Replay against a plain loop, which is timed on a few ablations: each takes it as long as any other."""
    model, windows = loaded(name, folder), long_windows(20)
    heads = heads_of_sublayers(model, every, most)
    some = heads[:: max(1, len(heads) // 4)]
    model.forecast(windows.configurations[0].contexts[:2], 48)  # imports and allocators
    replayed = sweep_seconds(model, windows, heads, replay=True)
    peak = peak_bytes()
    plain = sweep_seconds(model, windows, some, replay=False)
    each = replayed[0] / (len(heads) + 1), plain[0] / (len(some) + 1)
    same = identical(plain[1], of_these(replayed[1], some))
    limit = weight_bytes(model) + MEMORY + GB
    print(
        f"{name}: {len(heads)} heads x 20 windows x {CONTEXT} steps: {each[0]:.2f} CPU s a pass with replay, "
        f"{each[1]:.2f} s without ({len(some)} ablations); ratio {each[1] / each[0]:.2f} (at least {least}); "
        f"results {'identical' if same else 'DIFFER'}; peak {peak / GB:.2f} GB (at most {limit / GB:.2f} GB: "
        "weights, budget and 1 GB)"
    )


def sweep_seconds(
    model: Forecaster, windows: Suite, ablations: Sequence[Ablation], *, replay: bool
) -> tuple[float, SweepResult]:
    return timed(lambda: run(model, windows, ablations, replay=replay))


def of_these(result: SweepResult, ablations: Sequence[Ablation]) -> SweepResult:
    kept = {Ablation(()), *ablations}
    scores = {ablation: scores for ablation, scores in result.scores.items() if ablation in kept}
    return dataclasses.replace(result, scores=scores)


def sweep_of_pocket(name: str, folder: Path, *, every: int) -> None:
    """Every batch of the embedded suite under the heads of some sublayers, extrapolated to all heads."""
    model, windows = loaded(name, folder), suite(None)
    every_head = [Ablation((c,)) for c in model.anatomy.components("head")]
    some = heads_of_sublayers(model, every)
    clean, ablated = 0.0, 0.0

    def here(work: SweepWork) -> Iterator[object]:
        nonlocal clean, ablated
        worker = Worker(work.model, None, work.keep)
        for unit in work.plan.units():
            batch, truth = work.plan.batches[unit.batch], work.plan.truth(unit)
            alone = timed(lambda: worker.outcome(batch, truth, (Ablation(()),)))[0]  # noqa: B023
            seconds, outcome = timed(lambda: worker.outcome(batch, truth, unit.ablations))  # noqa: B023
            clean, ablated = clean + alone, ablated + seconds - alone
            yield unit, outcome

    run(model, windows, some, executor=here)  # type: ignore[arg-type]
    whole = clean + ablated * len(every_head) / len(some)
    batches = len(make_plan(model, windows, [], batch_size=BATCH_SIZE).batches)
    print(
        f"{name}: {len(some)} of {len(every_head)} heads x {len(windows)} windows ({batches} batches): "
        f"{clean:.0f} CPU s unablated, {ablated:.0f} s ablated; extrapolated to all heads "
        f"{whole / 60:.1f} CPU min on {torch.get_num_threads()} thread (at most 45 min on two cores)"
    )


# --- plans and recovery --------------------------------------------------------------------------


def plan(name: str, folder: Path, *, saving: float = 0.2) -> None:
    """A plan for a saving and the pruned checkpoint."""
    model = loaded(name, folder)
    start = time.perf_counter()
    ended: dict[str, float] = {}
    chosen = tsprune.plan(
        model, saving=saving, progress=lambda stage, *_: ended.update({stage: time.perf_counter() - start})
    )
    planned = time.perf_counter() - start
    tsprune.prune(model, chosen).save(folder / "smaller")
    stages = ", ".join(f"{stage} until {seconds:.1f} s" for stage, seconds in ended.items())
    print(
        f"{name}: {chosen}; first prices within 20 s, all within 240 s: {stages}; plan {planned:.1f} s, "
        f"all {time.perf_counter() - start:.1f} s"
    )
    print(memory_line(model, 2.2))


def recovery(name: str, folder: Path, *, steps: int, saving: float, limit: float) -> None:
    """`steps` of recovery of a model with `saving` of its parameters gone."""
    model = tsprune.load(name, device="cpu") if name.startswith("bundled:") else loaded(name, folder)
    if name.startswith("bundled:"):
        small = tsprune.prune(model, tsprune.plan(model, saving=saving, objective="parameters"))
    else:  # with random weights every plan is as good
        layers = len(model.anatomy.stacks[0].blocks)
        small = tsprune.prune(model, [f"encoder.{layers - 1}", f"decoder.{layers - 1}"])
    start, cpu = time.perf_counter(), time.process_time()
    recovered = tsprune.recover(small, model, steps=steps, patience=steps)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert recovered.origin is not None
    account = recovered.origin.recovery
    assert account is not None
    print(
        f"{name}: {small.parameter_count / model.parameter_count:.0%} of the parameters, {steps} steps: "
        f"{seconds:.0f} s, {cpu:.0f} CPU s on {torch.get_num_threads()} threads (at most {limit:.0f} s); "
        f"{account.metric} {account.score_before:.4f} -> {account.score_after:.4f}"
    )
    state = sum(p.nbytes for p in small.module.parameters()) * 2  # moments; Muon has one, AdamW two
    print(memory_line(model, 4, state))


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

FIGURES: dict[str, Callable[[Path], None]] = {
    "replay-bolt": lambda folder: replay("bolt-base", folder, every=5, least=2.5),
    "replay-timesfm": lambda folder: replay(TIMESFM, folder, every=4, most=3, least=1.6),
    "sweep": lambda folder: sweep_of_pocket("bolt-base", folder, every=9),
    "plan": lambda folder: plan("bolt-small", folder),
    "recover": lambda folder: recovery("bolt-small", folder, steps=100, saving=0.2, limit=480),
    "recover-bundled": lambda folder: recovery(
        "bundled:chronos-bolt", folder, steps=800, saving=0.3, limit=360
    ),
    "recover-base": lambda folder: recovery("bolt-base", folder, steps=3, saving=0.2, limit=float("inf")),
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
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    options = parser.parse_args()
    if unknown := set(options.figures) - set(FIGURES):
        parser.error(f"unknown figures {', '.join(sorted(unknown))}; some of: {', '.join(FIGURES)}")
    if options.here:
        keep_freed_memory()
        torch.set_num_threads(options.threads)
        print(machine(), flush=True)
        FIGURES[options.figures[0]](options.folder)
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
    process = subprocess.Popen([*command, "--threads", threads], env=variables)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    print(
        f"  {time.perf_counter() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU s, peak "
        f"{used.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / GB:.2f} GB",
        flush=True,
    )
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
