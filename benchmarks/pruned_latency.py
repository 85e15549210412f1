"""Milliseconds of a bundled model against pruned versions of it, at batch 1 and 64, taken in turns.

Heads removed (width) and whole layers removed (depth), so that it can be seen which of the two is
faster, and how far FLOPs are from milliseconds: the last figure is the measured speed-up by that of the
FLOPs (to reach at batch 64: 0.8). Pass a number of rounds to try it out (default 100).
"""

from __future__ import annotations

import sys

import tsprune
from tsprune.anatomy import Anatomy
from tsprune.cost.latency import compare_latency, machine
from tsprune.studies import DEFAULT_MODELS

CONTEXT, HORIZON = 512, 64


def removals(anatomy: Anatomy) -> dict[str, list[str]]:
    """Of the middle layers: half of the heads; all MLPs; or the layers themselves."""
    heads, mlps, layers = [], [], []
    for stack in anatomy.stacks:
        middle = anatomy.middle_layers(stack.name)
        layers += [f"{stack.name}.{layer}" for layer in middle]
        mlps += [f"{stack.name}.{layer}.mlp" for layer in middle]
        heads += [
            f"{sublayer}.head.{head}"
            for sublayer, site in anatomy.sites()
            if sublayer.stack == stack.name and sublayer.layer in middle
            for head in site.numbers[: len(site.numbers) // 2]
        ]
    return {"half of the middle heads": heads, "middle MLPs": mlps, "middle layers": layers}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(f"{machine()}; context {CONTEXT}, horizon {HORIZON}, {rounds} rounds")
    for name in DEFAULT_MODELS:
        model = tsprune.load(name, device="cpu")
        for what, patterns in removals(model.anatomy).items():
            pruned = tsprune.prune(model, patterns)
            frame = compare_latency(model, pruned, context=CONTEXT, horizon=HORIZON, rounds=rounds)
            rows = frame.to_dict("records")
            for before, after in zip(rows[::2], rows[1::2], strict=True):
                flops = before["gflops"] / after["gflops"]
                print(
                    f"{name} without {what}, batch {after['batch']}: "
                    f"{before['ms']:.2f} [{before['ms_low']:.2f}, {before['ms_high']:.2f}] ms -> "
                    f"{after['ms']:.2f} [{after['ms_low']:.2f}, {after['ms_high']:.2f}] ms; "
                    f"ratio {after['time_ratio']:.3f} "
                    f"[{after['time_ratio_low']:.3f}, {after['time_ratio_high']:.3f}], "
                    f"parameters {after['parameters'] / before['parameters']:.3f}, "
                    f"FLOPs {1 / flops:.3f}; speed-up {1 / after['time_ratio']:.3f}, FLOPs promise "
                    f"{flops:.3f}: {1 / after['time_ratio'] / flops:.3f} of it",
                    flush=True,
                )


if __name__ == "__main__":
    main()
