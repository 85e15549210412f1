"""Scores: what one pass saves over a pass a score, and how each agrees with the exact effect."""

from __future__ import annotations

import sys

from measure import arguments, machine, suite, timed

import tsprune
from tsprune.data import Suite
from tsprune.models import Forecaster, bundled_names
from tsprune.scores import agreement, score_table
from tsprune.scores.activations import ACTIVATION_SCORES

KINDS = ("head", "mlp", "layer")


def passes(model: Forecaster, windows: Suite) -> None:
    names = [score.name for score in ACTIVATION_SCORES]
    score_table(model, windows, by=names, kinds=KINDS, per_configuration=1)  # imports and allocators
    together, _ = timed(lambda: score_table(model, windows, by=names, kinds=KINDS))
    apart, _ = timed(lambda: [score_table(model, windows, by=[name], kinds=KINDS) for name in names])
    print(
        f"{model.name}: {len(names)} scores of activations in one pass {together:.1f} s, in a pass each "
        f"{apart:.1f} s, ratio {apart / together:.1f}"
    )


def main() -> int:
    options = arguments(__doc__ or "")
    print(machine())
    for name in bundled_names():
        model, windows = tsprune.load(f"bundled:{name}", device="cpu"), suite(options.windows)
        passes(model, windows)
        seconds, table = timed(lambda model=model, windows=windows: agreement(model, windows))
        table = table[(table["group"] == "all") & (table["metric"] == "CRPS")]
        shown = table[["kind", "score", "rho", "low", "high", "p_value", "count", "expected"]]
        print(f"{model.name}: agreement with the exact change of CRPS on other series, {seconds:.1f} s")
        print(shown.to_string(index=False, float_format=lambda x: f"{x:.2f}"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
