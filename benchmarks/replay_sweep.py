"""Every single head and MLP, with replay and by a plain loop of hooks; the results must be identical.

To reach: 3.5 on Chronos-Bolt, within 1.25 of its suffix limit; 1.6 on decoder-only models; 8 % of a
sweep's time for everything that is not a model forward.
"""

from __future__ import annotations

import sys

import numpy as np
from measure import arguments, both_ways, machine, share_outside, suffix_limit, suite

import tsprune
from tsprune.data import Suite
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster
from tsprune.sweeps import run

BOLT, DECODER_ONLY = 3.5, 1.6


def compare(model: Forecaster, windows: Suite, singles: list[Ablation]) -> bool:
    run(model, windows, singles[:1])  # imports and allocators
    found = both_ways(model, windows, singles)
    wanted = target(model)
    print(
        f"{model.name}: {len(singles)} ablations x {len(windows)} windows: plain loop {found.plain:.1f} s, "
        f"replay {found.replay:.1f} s, ratio {found.ratio:.2f} (to reach: {wanted or 'none'}); outside of "
        f"the model {found.engine:.1%} (limit 8 %); results {'identical' if found.identical else 'DIFFER'}"
    )
    if wanted and found.ratio < wanted:
        print(f"  not reached; the time with replay: {found.profile()}")
    if model.family == "chronos-bolt":
        limit = suffix_limit(model, windows, singles)
        print(f"  suffix limit {limit:.2f}: {limit / found.ratio:.2f} times what was reached (limit 1.25)")
    else:
        outside = share_outside(model, windows)
        limits = [by_layers(model, singles, share) for share in (0.0, outside)]
        print(
            f"  whole layers, all equally long, would give {limits[0]:.2f}; with the {outside:.0%} of a "
            f"forecast that no replay saves {limits[1]:.2f}, and at the very most {1 / outside:.2f}"
        )
    return found.identical


def singles_of(model: Forecaster) -> list[Ablation]:
    """Every head and every MLP, each ablated alone."""
    return [Ablation((c,)) for c in model.anatomy.components() if c.kind in ("head", "mlp")]


def target(model: Forecaster) -> float | None:
    if model.family == "chronos-bolt":
        return BOLT
    causal = len(model.anatomy.stacks) == 1 and model.anatomy.stacks[0].causal
    return DECODER_ONLY if causal else None


def by_layers(model: Forecaster, singles: list[Ablation], outside: float) -> float:
    """The ratio if whole blocks were replayed, all equally long, and `outside` of a forecast is in none.

    (Heads of one sublayer share its attention as well, so that more can be reached.)
    """
    layers = [(s.name, i) for s in model.anatomy.stacks for i in range(len(s.blocks))]
    where = [layers.index((a.components[0].stack, a.components[0].layer)) for a in singles]
    return 1 / float(np.mean([outside + (1 - outside) * (1 - index / len(layers)) for index in where]))


def main() -> int:
    options = arguments(__doc__ or "")
    print(machine())
    windows, same = suite(options.windows), True
    for name in options.models:
        model = tsprune.load(f"bundled:{name}", device="cpu")
        same &= compare(model, windows, singles_of(model)[:: options.every])
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
