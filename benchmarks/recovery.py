"""30 % of the parameters inside the blocks removed, then recovered (to reach: at most 2 % worse MASE).

The components are chosen on synthetic series alone (`tsprune.plan` with `saving`); recovery stops by the
calibration half of the embedded suite. The printed figures are measured on the other half.
Parameters inside the blocks are those of attention, MLPs and their norms, not those of embeddings and
readout. With --state a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from measure import machine, suite

import tsprune
from tsprune.data import split
from tsprune.models import Forecaster
from tsprune.pruning import Comparison, compare

SHARE = 0.3


def block_parameters(model: Forecaster) -> int:
    """Parameters inside the blocks of all stacks."""
    blocks = [block for stack in model.anatomy.stacks for block in stack.blocks]
    parameters = [p for b in blocks for p in model.module.get_submodule(b.module).parameters()]
    return sum(p.numel() for p in parameters)


def told(what: str, small: Forecaster, found: Comparison) -> str:
    mase, crps = (
        f"{m} {found.before[m]:.4f} -> {found.after[m]:.4f}, {found.change[m]}" for m in ("MASE", "CRPS")
    )
    return f"{what}: {small.parameter_count:,} parameters; {mase}; {crps}"


def recovered(model: Forecaster, options: argparse.Namespace) -> bool:
    """Whether the blocks are `SHARE` smaller and MASE is at most 2 % worse."""
    windows = suite(options.windows)
    _, report = split(windows)
    whole = block_parameters(model) / model.parameter_count
    plan = tsprune.plan(model, saving=options.share * whole, objective="parameters")
    small = tsprune.prune(model, plan)
    fewer = 1 - block_parameters(small) / block_parameters(model)
    removed = small.origin.components if small.origin is not None else ()
    print(
        f"{model.name}: {model.parameter_count:,} parameters, {block_parameters(model):,} in blocks; "
        f"{fewer:.1%} of these removed ({', '.join(c.address for c in removed)}); "
        f"{len(report)} windows that nothing was chosen on, relative to Seasonal Naive",
        flush=True,
    )
    print(told("pruned", small, compare(model, small, report)), flush=True)
    start = time.process_time()
    again = tsprune.recover(
        small,
        model,
        suite=windows,
        steps=options.steps,
        minutes=options.minutes,
        histories=options.histories,
        learning_rate=options.learning_rate,
        patience=options.patience,
        precision=options.precision,
        history=options.history,
        stream=options.stream,
        state=None if options.state is None else options.state / f"{model.name.rpartition(':')[2]}.state",
        progress=lambda stage, done, total: (
            print(done, total, f"{time.process_time() - start:.0f} s", flush=True)
            if options.verbose and done % 20 == 0
            else None
        ),
    )
    assert again.origin is not None
    print(again.origin.recovery)
    seconds = time.process_time() - start
    found = compare(model, again, report)
    print(told(f"recovered in {seconds:.0f} CPU seconds", again, found), flush=True)
    return fewer >= options.share and found.change["MASE"].value <= 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["bundled:chronos-bolt", "bundled:timesfm"])
    parser.add_argument("--windows", type=int, default=None, help="at most so many of each configuration")
    parser.add_argument("--share", type=float, default=SHARE, help="of the blocks' parameters to remove")
    for field in dataclasses.fields(tsprune.pruning.recovery.Recipe):
        if field.name in ("steps", "histories", "learning_rate", "patience", "history", "stream"):
            kind = type(field.default)
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=kind,
                default=field.default,
            )
    parser.add_argument("--minutes", type=float, default=None, help="most that training takes")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--state", type=Path, default=None, help="folder that keeps the states")
    parser.add_argument("--verbose", action="store_true", help="say how far training is")
    options = parser.parse_args()
    print(machine())
    reached = [recovered(tsprune.load(name, device="cpu"), options) for name in options.models]
    print(f"at most 2 % worse MASE with {options.share:.0%} fewer block parameters: {reached}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
