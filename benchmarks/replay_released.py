"""Single heads and MLPs of a Toto as large as the released one, with replay and by a plain loop of hooks.

To reach: 1.6, as `bundled:toto` has to (see `replay_sweep.py`). Both forecast 64 steps at a time, so every
horizon of the embedded suite (and every short one of GIFT-Eval) is one patch; of a second patch replay saves
nothing. Weights are random: how long a forecast takes does not depend on them.
"""

from __future__ import annotations

import dataclasses
import sys

import torch
from measure import arguments, machine, suite
from replay_sweep import compare, singles_of

from tsprune.models.checkpoints import find
from tsprune.models.toto import Toto

# of Datadog/Toto-Open-Base-1.0: 151 million parameters
RELEASED = {
    "patch_size": 64,
    "stride": 64,
    "embed_dim": 768,
    "num_layers": 12,
    "num_heads": 12,
    "mlp_hidden_dim": 3072,
    "spacewise_every_n_layers": 12,
    "output_distribution_kwargs": {"k_components": 24},
}
WINDOWS, EVERY = 8, 4  # windows of each configuration, and every so many-th ablation: all take over an hour


def released() -> Toto:
    bundled = find("bundled:toto")
    config = {**bundled.config, **RELEASED}
    torch.manual_seed(0)
    return Toto.blank(dataclasses.replace(bundled, name="Toto of the released size", config=config))


def main() -> int:
    options = arguments(__doc__ or "", windows=WINDOWS, every=EVERY)
    print(machine())
    model = released()
    return int(not compare(model, suite(options.windows), singles_of(model)[:: options.every]))


if __name__ == "__main__":
    sys.exit(main())
