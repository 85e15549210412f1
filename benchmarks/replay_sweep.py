"""Every single head and MLP, with replay and by a plain loop of hooks; the results must be identical.

To reach: 3.5 on Chronos-Bolt, within 1.25 of its suffix limit; 1.6 on decoder-only models; 8 % of a
sweep's time for everything that is not a model forward.
"""

from __future__ import annotations

import sys

import numpy as np
from measure import arguments, identical, machine, suffix_limit, suite, timed

import tsprune
from tsprune.ablation import Ablation
from tsprune.data import Suite
from tsprune.evaluation import prepare
from tsprune.models import Forecaster, SamplingForecaster
from tsprune.replay import Replay
from tsprune.sweep import BATCH_SIZE, make_plan, run

BOLT, DECODER_ONLY = 3.5, 1.6


def compare(model: Forecaster, windows: Suite, singles: list[Ablation]) -> bool:
    prepared = [prepare(configuration) for configuration in windows.configurations]
    run(model, windows, singles[:1], prepared=prepared)  # imports and allocators
    model_seconds = 0.0
    original = model.forecast

    def forecast(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal model_seconds
        seconds, result = timed(lambda: original(*args, **kwargs))
        model_seconds += seconds
        return result

    model.forecast = forecast  # type: ignore[method-assign]
    fast, replayed = timed(lambda: run(model, windows, singles, prepared=prepared))
    del model.forecast
    other = (fast - model_seconds) / fast
    slow, plain = timed(lambda: run(model, windows, singles, prepared=prepared, replay=False))
    same = identical(replayed, plain)
    print(
        f"{model.name}: {len(singles)} ablations x {len(windows)} windows: plain loop {slow:.1f} s, replay "
        f"{fast:.1f} s, ratio {slow / fast:.2f} (to reach: {target(model)}); outside of the model "
        f"{other:.1%} (limit 8 %); results {'identical' if same else 'DIFFER'}"
    )
    if model.family == "chronos-bolt":
        limit = suffix_limit(model, windows, singles)
        print(f"  suffix limit {limit:.2f}: {limit / (slow / fast):.2f} times what was reached (limit 1.25)")
    else:
        outside = share_outside(model, windows)
        limits = [by_layers(model, singles, share) for share in (0.0, outside)]
        print(
            f"  limit by layers alone, all equally long: {limits[0]:.2f}; but {outside:.0%} of a forward is "
            f"outside of all blocks, which leaves {limits[1]:.2f}"
        )
    return same


def target(model: Forecaster) -> float | str:
    if model.family == "chronos-bolt":
        return BOLT
    return "none" if isinstance(model, SamplingForecaster) else DECODER_ONLY


def share_outside(model: Forecaster, windows: Suite, repeats: int = 3) -> float:
    """Share of a forward (of the largest batch) that is left when every block returns its record."""
    batch = max(make_plan(model, windows, [], batch_size=BATCH_SIZE).batches, key=len)
    replay = Replay(model)

    def forecast() -> object:
        return model.forecast(batch.contexts, batch.horizon)

    with replay.record("clean pass"):
        forecast()
    whole = min(timed(forecast)[0] for _ in range(repeats))
    with replay.reuse("clean pass", ()):
        return min(timed(forecast)[0] for _ in range(repeats)) / whole


def by_layers(model: Forecaster, singles: list[Ablation], outside: float) -> float:
    """The limit if blocks are equally long, and `outside` of a forward is not in any block."""
    layers = [(s.name, i) for s in model.anatomy.stacks for i in range(len(s.blocks))]
    where = [layers.index((a.components[0].stack, a.components[0].layer)) for a in singles]
    return 1 / float(np.mean([outside + (1 - outside) * (1 - index / len(layers)) for index in where]))


def main() -> int:
    options = arguments(__doc__ or "")
    print(machine())
    windows, same = suite(options.windows), True
    for name in options.models:
        model = tsprune.load(f"bundled:{name}", device="cpu")
        singles = [Ablation((c,)) for c in model.anatomy.components() if c.kind in ("head", "mlp")]
        same &= compare(model, windows, singles[:: options.every])
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
