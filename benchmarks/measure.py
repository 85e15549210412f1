"""What the timed comparisons share: machine class, CPU time, and what replay cannot save."""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tsprune.cost.allocator import keep_freed_memory
from tsprune.data import Suite, pocket
from tsprune.evaluation import WindowStatistics, shared_batches
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Point, point_of
from tsprune.models import Forecaster, bundled_names
from tsprune.replay import Replay
from tsprune.run_options import BATCH_SIZE
from tsprune.sweeps import SweepResult, make_plan, run
from tsprune.sweeps.cell_plan import Unit
from tsprune.sweeps.engine import SweepWork
from tsprune.sweeps.variants import Variants
from tsprune.sweeps.worker import Outcome, Worker

Result = TypeVar("Result")


def machine() -> str:
    """Processor architecture, cores, and the one thread that everything is measured on.

    From here on freed memory is kept, as the command line does.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    return f"machine: {platform.machine()}, {os.cpu_count()} cores; 1 torch thread; CPU seconds"


def arguments(what: str, windows: int | None = None, every: int = 1) -> argparse.Namespace:
    """--windows: the most windows of each configuration; --every: ablations; --models: of the bundled ones.

    windows, every : the defaults; everything is measured unless a benchmark says otherwise
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--windows", type=int, default=windows, help="at most so many of each configuration")
    parser.add_argument("--every", type=int, default=every, help="only every so many-th ablation")
    parser.add_argument("--models", nargs="*", default=bundled_names(), help="names of bundled checkpoints")
    return parser.parse_args()


def suite(windows: int | None) -> Suite:
    """The embedded suite, or at most `windows` of each configuration."""
    whole = pocket()
    if windows is None:
        return whole
    cut = tuple(c.select(np.arange(len(c)) < windows) for c in whole.configurations)
    return dataclasses.replace(whole, configurations=cut)


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds of this process, and what `work` returned: others on the machine do not count."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def identical(a: SweepResult, b: SweepResult) -> bool:
    """Whether every statistic of every ablation and window is the same to the last bit."""
    fields = [field.name for field in dataclasses.fields(WindowStatistics)]
    return a.scores.keys() == b.scores.keys() and all(
        np.array_equal(one.spearman, b.scores[cell][name].spearman)
        and all(
            np.array_equal(getattr(one.statistics, field), getattr(b.scores[cell][name].statistics, field))
            for field in fields
        )
        for cell, configurations in a.scores.items()
        for name, one in configurations.items()
    )


@dataclasses.dataclass
class BothWays:
    """A sweep with replay and by a plain loop of hooks, one batch after the other in turn.

    replay, plain : CPU seconds of everything
    parts : of the seconds with replay, by what they went into
    """

    replay: float
    plain: float
    parts: dict[str, float]
    identical: bool

    @property
    def ratio(self) -> float:
        return self.plain / self.replay

    @property
    def engine(self) -> float:
        """Share of the seconds with replay that is outside of the model."""
        return 1 - sum(self.parts.values()) / self.replay

    def profile(self) -> str:
        """Where the seconds with replay went, in shares."""
        shares = {name: seconds / self.replay for name, seconds in self.parts.items()}
        return "; ".join(f"{name} {share:.0%}" for name, share in [*shares.items(), ("engine", self.engine)])


CLEAN, ALONE, TOGETHER = "clean passes", "forecasts alone", "forecasts together"


def both_ways(model: Forecaster, windows: Suite, ablations: Sequence[Ablation]) -> BothWays:
    """Taking turns batch by batch, both sides see the same machine, whatever else it does meanwhile."""
    parts = dict.fromkeys((CLEAN, ALONE, TOGETHER), 0.0)
    loop: list[tuple[float, tuple[Unit, Outcome]]] = []

    def work_both(work: SweepWork) -> Generator[tuple[Unit, Outcome], None, None]:
        fast, slow = (Worker(work.model, None, work.keep, replay=replay) for replay in (True, False))
        for unit in work.plan.units():
            batch, truth = work.plan.batches[unit.batch], work.plan.truth(unit)
            with clocked(model, parts):
                outcome = fast.outcome(batch, truth, unit.ablations)
            seconds, plain = timed(lambda: slow.outcome(batch, truth, unit.ablations))  # noqa: B023
            loop.append((seconds, (unit, plain)))
            yield unit, outcome

    def outcomes(_work: SweepWork) -> Generator[tuple[Unit, Outcome], None, None]:
        yield from (found for _, found in loop)

    total, replayed = timed(lambda: run(model, windows, ablations, executor=work_both))
    rest, plain = timed(lambda: run(model, windows, ablations, executor=outcomes))
    seconds = sum(took for took, _ in loop)
    return BothWays(total - seconds, seconds + rest, parts, identical(replayed, plain))


@contextmanager
def clocked(model: Forecaster, parts: dict[str, float]) -> Iterator[None]:
    """Adds up the CPU seconds of recorded clean passes, of joint forecasts, and of others."""
    forecast, clean, together = model.forecast, Variants.clean, Variants._together
    within: list[str] = []  # what is being counted: what it calls counts as part of it

    def counted(name: str, work: Callable[..., Result]) -> Callable[..., Result]:
        def timed_work(*args: Any, **kwargs: Any) -> Result:
            if within:
                return work(*args, **kwargs)
            within.append(name)
            seconds, result = timed(lambda: work(*args, **kwargs))
            within.pop()
            parts[name] += seconds
            return result

        return timed_work

    model.forecast = counted(ALONE, forecast)  # type: ignore[method-assign]
    Variants.clean = counted(CLEAN, clean)  # type: ignore[method-assign]
    Variants._together = counted(TOGETHER, together)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.forecast
        Variants.clean, Variants._together = clean, together  # type: ignore[method-assign]


def share_outside(model: Forecaster, windows: Suite, repeats: int = 3, most: int = 16) -> float:
    """Share of a forecast that is left when every block returns its record, of what it was called with.

    (Later steps of an autoregressive forecast, which go on from what was drawn, are left: blocks
    compute them anew.) Of the whole suite, estimated from at most `most` windows of each batch.
    """
    whole = left = 0.0
    for batch in make_plan(model, windows, [], batch_size=BATCH_SIZE).batches:
        part = batch.select(range(min(most, len(batch))))
        replay = Replay(model)

        def forecast() -> object:
            return model.forecast(part.contexts, part.horizon)  # noqa: B023

        def replayed() -> float:
            with replay.reuse("clean pass", ()):  # noqa: B023
                return timed(forecast)[0]

        with replay.record("clean pass"):
            forecast()
        weight = len(batch) / len(part)
        whole += weight * min(timed(forecast)[0] for _ in range(repeats))
        left += weight * min(replayed() for _ in range(repeats))
    return left / whole


def suffix_limit(model: Forecaster, windows: Suite, ablations: Sequence[Ablation], repeats: int = 7) -> float:
    """Forwards by what is left of one when everything before an ablated component is free.

    For a network that runs once a forecast (Chronos-Bolt up to its output patch). A clean forward of
    every batch is timed up to each component's `Point`; the rest of it, less the keys and values that a
    decoder makes of an unchanged encoder output, cannot be saved.
    """
    whole = left = 0.0
    for batch in shared_batches(
        windows.configurations,
        context_length=model.context_length,
        batch_size=BATCH_SIZE,
        prefix_steps=model.prefix_steps,
    ):
        runs = [_clocked(model, batch.contexts, batch.horizon) for _ in range(repeats)]
        seconds, reached, projections = min(runs, key=lambda run: run[0])
        whole += seconds * len(ablations)
        for ablation in ablations:
            point = min(
                (point_of(model.anatomy, c) for c in model.anatomy.expand(ablation.components)),
                key=lambda p: reached[p],
            )
            left += seconds - reached[point]
            if ablation.components[0].stack == model.anatomy.stacks[-1].name:
                left -= sum(took for at, took in projections if at >= reached[point])
    return whole / left


def _clocked(
    model: Forecaster, contexts: Sequence[NDArray[np.float32]], horizon: int
) -> tuple[float, dict[Point, float], list[tuple[float, float]]]:
    """CPU seconds of a forecast, when each point is reached, and (when, seconds) of cross projections."""
    points = {
        point_of(model.anatomy, c)
        for c in model.anatomy.components()
        if c.kind in ("head", "mlp", "attention")
    }
    sites = (s for stack in model.anatomy.stacks for b in stack.blocks for s in b.attention)
    cross = [p.module for s in sites if s.role == "cross" for p in (s.key, s.value)]
    reached: dict[Point, float] = {}
    projections: list[tuple[float, float]] = []
    handles = []
    start = time.process_time()

    def reach(point: Point) -> None:
        reached[point] = time.process_time() - start

    def began(module: nn.Module, _args: object) -> None:
        projections.append((time.process_time() - start, 0.0))

    def ended(module: nn.Module, _args: object, _output: object) -> None:
        at = projections[-1][0]
        projections[-1] = at, time.process_time() - start - at

    try:
        for point in points:
            module = model.module.get_submodule(point.path)
            if point.side == "input":
                handles.append(module.register_forward_pre_hook(lambda _m, _a, p=point: reach(p)))
            else:
                handles.append(module.register_forward_hook(lambda _m, _a, _o, p=point: reach(p)))
        for path in cross:
            module = model.module.get_submodule(path)
            handles += [module.register_forward_pre_hook(began), module.register_forward_hook(ended)]
        start = time.process_time()
        model.forecast(contexts, horizon)
        return time.process_time() - start, reached, projections
    finally:
        for handle in handles:
            handle.remove()
