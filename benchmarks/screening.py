"""Screening against exact single ablations: Spearman (to reach: 0.85), cost (limit: 6 forwards)."""

from __future__ import annotations

import sys

import numpy as np
from measure import arguments, machine, suite, timed
from scipy.stats import spearmanr

import tsprune
from tsprune.data import Suite
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster
from tsprune.scores import screen
from tsprune.sweeps import run


def compare(model: Forecaster, windows: Suite) -> None:
    run(model, windows, [], replay=False)  # imports and allocators
    forward, _ = timed(lambda: run(model, windows, [], replay=False))
    seconds, frame = timed(lambda: screen(model, windows))
    frame = frame[frame["kind"].isin(["head", "mlp"])]
    ablations = [Ablation(model.anatomy.select(address)) for address in frame["address"]]
    exact_seconds, result = timed(lambda: run(model, windows, ablations))
    exact = np.abs([result.change(ablation)["CRPS"] for ablation in ablations])
    correlations = {
        name: spearmanr(frame[name].abs(), exact, nan_policy="omit").statistic
        for name in ("score", "first_order", "curvature")
    }
    print(
        f"{model.name}: {len(frame)} heads and MLPs x {len(windows)} windows: Spearman "
        f"{correlations['score']:.3f} (first order alone {correlations['first_order']:.3f}, curvature alone "
        f"{correlations['curvature']:.3f}); {seconds:.1f} s = {seconds / forward:.1f} forwards of "
        f"{forward:.1f} s; exact by replay {exact_seconds:.1f} s, ratio {exact_seconds / seconds:.1f}"
    )


def main() -> int:
    options = arguments(__doc__ or "")
    print(machine())
    for name in options.models:
        compare(tsprune.load(f"bundled:{name}", device="cpu"), suite(options.windows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
