"""Losses of smaller models on series that took no part in any choice: of the package, and of GIFT-Eval.

    python benchmarks/held_out.py bundled:chronos-bolt twice thrice --gift-eval /path/to/gift_eval

The embedded suite chooses plans and recovered weights, so the configurations of `pocket` are left out here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import tsprune
from tsprune.data import Suite, pocket, pocket_large
from tsprune.pruning import compare


def held_out(gift_eval: Path | None) -> Suite:
    """The configurations of `pocket-large` that `pocket` lacks, and those of a copy of GIFT-Eval."""
    chosen = {one.name for one in pocket().configurations}
    large = [one for one in pocket_large().configurations if one.name not in chosen]
    more = () if gift_eval is None else tsprune.data.gift_eval(gift_eval).configurations
    return Suite("held-out", (*large, *more))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("original")
    parser.add_argument("smaller", nargs="+", help="folders of pruned models")
    parser.add_argument("--gift-eval", type=Path, help="the root of a copy of GIFT-Eval")
    given = parser.parse_args()
    suite, original = held_out(given.gift_eval), tsprune.load(given.original, device="cpu")
    print(f"{len(suite.configurations)} configurations, {len(suite)} windows; 95 % intervals")
    for folder in given.smaller:
        found = compare(original, tsprune.load(folder, device="cpu"), suite)
        changes = ", ".join(f"{name} {change.as_percent()}" for name, change in found.change.items())
        print(f"{folder}: {changes}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
