"""`python -m pretrain FAMILY --out DIR`: trains one bundled checkpoint, or goes on where it stopped."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch
import typer

from pretrain.loop import Schedule, train
from tsprune.cost.allocator import keep_freed_memory

# a position bias must move by several units to matter, which takes a common rate thousands of steps
T5_SCHEDULE = Schedule(
    4_800, 32, 2e-3, warmup=40, faster=(("relative_attention_bias", 20.0), ("shared", 2.0))
)
RECIPES = {
    "timesfm": ("pretrain.families.timesfm", "TimesFMObjective", Schedule(3_000, 64, 2e-3)),
    "chronos-bolt": ("pretrain.families.chronos_bolt", "ChronosBoltObjective", Schedule(6_500, 256, 2e-3)),
    "chronos-bolt-tiny": ("pretrain.families.chronos_bolt", "TinyObjective", Schedule(6_500, 256, 2e-3)),
    "chronos2": ("pretrain.families.chronos2", "BundledObjective", Schedule(6_000, 128, 2e-3)),
    "toto": ("pretrain.families.toto", "TotoObjective", Schedule(2_000, 64, 2e-3)),
    "toto2": ("pretrain.families.toto2", "Toto2Objective", Schedule(3_000, 64, 2e-3)),
    "moirai2": ("pretrain.families.moirai2", "BundledObjective", Schedule(3_000, 64, 2e-3)),
    "moirai": ("pretrain.families.moirai", "MoiraiObjective", Schedule(2_000, 64, 2e-3)),
    "chronos-t5-coarse": ("pretrain.families.chronos_t5", "CoarseObjective", T5_SCHEDULE),
    "chronos-t5": ("pretrain.families.chronos_t5", "ChronosT5Objective", T5_SCHEDULE),
}
# where a run begins that does not begin from nothing: the last state before the decay of another
STARTS = {"chronos-t5": "runs/chronos-t5-coarse/before_decay.pt"}
# bundled checkpoints that are runs of the laboratory
LABORATORY_RUNS = {"timesfm-deep": "depth-32-s0"}


def commands(family: str) -> list[str]:
    """What to type for the bundled checkpoint of `family`."""
    if family in LABORATORY_RUNS:
        return [f"python -m pretrain.laboratory run {LABORATORY_RUNS[family]} --out runs/laboratory"]
    if family not in STARTS:
        return [f"python -m pretrain {family} --out runs/{family}"]
    start = Path(STARTS[family])
    first = f"python -m pretrain {start.parent.name} --out {start.parent}"
    return [first, f"python -m pretrain {family} --out runs/{family} --start {start}"]


def main(
    family: Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")],
    out: Annotated[Path, typer.Option(help="Where state, losses and the checkpoint go.")],
    steps: Annotated[int | None, typer.Option(help="Optimisation steps, if not the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows per step.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of data and weights.")] = 0,
    start: Annotated[Path | None, typer.Option(help="`before_decay.pt` of a run to begin from.")] = None,
    precision: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto: bfloat16 where the processor has it.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Train one bundled checkpoint on synthetic series."""
    if family not in RECIPES:
        raise typer.BadParameter(f"unknown family {family!r}; one of: {', '.join(RECIPES)}")
    if family in STARTS and start is None and not (out / "state.pt").exists():
        raise typer.BadParameter(f"begins from another run: {'; then '.join(commands(family))}")
    module, name, schedule = RECIPES[family]
    torch.set_num_threads(threads)
    objective = getattr(import_module(module), name)()
    schedule = dataclasses.replace(
        schedule, steps=steps or schedule.steps, batch_size=batch_size or schedule.batch_size
    )
    train(
        objective,
        schedule,
        out,
        seed=seed,
        start=start,
        precision=precision,
        say=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    keep_freed_memory()
    typer.run(main)
