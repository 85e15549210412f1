"""How far results depend on the processor: one command under settings that imitate others.

    python benchmarks/processors.py                                  # a study of two bundled models
    python benchmarks/processors.py study bundled:timesfm --configs 'us_*/M/short' --out OUT
    python benchmarks/processors.py --settings own avx2 -- sweep bundled:timesfm --kind mlp --out OUT

The word OUT stands for a file or folder of the command's results, another one for each setting. All parquet
and CSV files there are compared with those of the first setting, table by table (`experiment`) and column by
column: the largest difference, and the decimals to which all values agree. Exit status 1 if verdicts differ.

A setting tells the libraries which instructions they may use. It imitates a smaller processor on a larger
one, never the reverse, and instruction sets that are not those of x86 are out of its reach.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

PLACE = "OUT"
COMMAND = ("study", "bundled:timesfm", "bundled:chronos-bolt", "--out", PLACE)
AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "own": {"OMP_NUM_THREADS": "1"},
    "own, 2 threads": {"OMP_NUM_THREADS": "2"},
    "avx2": {
        "OMP_NUM_THREADS": "1",
        "ATEN_CPU_CAPABILITY": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
        "MKL_CBWR": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": AVX512,
    },
    "sse, 2 threads": {
        "OMP_NUM_THREADS": "2",
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Nehalem",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NPY_DISABLE_CPU_FEATURES": f"X86_V3 {AVX512}",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
    },
}
VERDICT = "verdict"
TEXTS = (VERDICT, "evidence")  # may differ with the numbers; other text tells the rows apart
TIMES = ("seconds", "milliseconds")  # parts of names of columns that are no results


def run(command: Sequence[str], setting: Mapping[str, str], folder: Path) -> float:
    """Wall-clock seconds of `tsprune` with these arguments under a setting."""
    arguments = [str(folder / "results") if word == PLACE else word for word in command]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "tsprune.cli", *arguments],
        check=True,
        env={**os.environ, **setting, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Every table below `folder`, by file and, where rows say so, by experiment."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".parquet", ".csv"):
            continue
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        name = path.stem
        if "experiment" in frame:
            parts = frame.groupby("experiment", sort=False)
            found |= {f"{name}: {part}": rows.dropna(axis=1, how="all") for part, rows in parts}
        else:
            found[name] = frame
    return found


def aligned(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its rows named by their text, and by their order where that is the same."""
    keys = [c for c in frame if c not in TEXTS and not pd.api.types.is_float_dtype(frame[c])]
    names = frame[keys].astype(str).agg("|".join, axis=1) if keys else pd.Series("", frame.index)
    return frame.set_index([names, names.groupby(names).cumcount()])


def differences(first: pd.DataFrame, other: pd.DataFrame) -> Iterator[tuple[str, float, float, float]]:
    """Column, its largest absolute and relative difference, and the share of rows that one of them lacks."""
    one, two = aligned(first), aligned(other)
    both = one.index.intersection(two.index)
    missing = 1 - len(both) / max(1, len(one), len(two))
    for column in one.columns.intersection(two.columns):
        if not pd.api.types.is_float_dtype(one[column]) or any(part in column for part in TIMES):
            continue
        a, b = (table.loc[both, column].to_numpy(float) for table in (one, two))
        known = np.isfinite(a) & np.isfinite(b)
        apart = np.abs(a - b)[known]
        relative = apart / np.maximum(np.abs(a[known]), np.finfo(float).tiny)
        lost = missing + float((np.isfinite(a) != np.isfinite(b)).mean()) if len(a) else missing
        yield column, float(apart.max(initial=0)), float(relative.max(initial=0)), lost


def verdicts(first: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Rows whose verdicts differ."""
    if VERDICT not in first or VERDICT not in other:
        return []
    one, two = aligned(first)[VERDICT], aligned(other)[VERDICT]
    both = one.index.intersection(two.index)
    return [f"{key[0]}: {one[key]}, {two[key]}" for key in both if one[key] != two[key]]


def compare(first: Mapping[str, pd.DataFrame], other: Mapping[str, pd.DataFrame]) -> int:
    """Prints how the tables of two settings differ; how many verdicts do."""
    changed = equal = 0
    print(f"{'table and column':60} {'absolute':>9} {'relative':>9}  decimals")
    for name, table in first.items():
        if name not in other:
            print(f"{name}: missing")
            continue
        for column, apart, relative, lost in differences(table, other[name]):
            if not apart and not lost:
                equal += 1
                continue
            decimals = "all" if not apart else max(0, math.floor(-math.log10(2 * apart)))
            note = f"  ({lost:.1%} of the rows in one only)" if lost else ""
            print(f"{name + ' ' + column:60} {apart:9.2g} {relative:9.2g}  {decimals}{note}")
        for line in (found := verdicts(table, other[name])):
            print(f"verdict differs: {line}")
        changed += len(found)
    print(f"{equal} more columns are equal to the last bit")
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--keep", type=Path, help="a folder for the results, which are thrown away otherwise")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of tsprune, with OUT for its results")
    arguments = parser.parse_args()
    command = [word for word in arguments.command if word != "--"] or COMMAND
    names: list[str] = arguments.settings
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores; {' '.join(command)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        found = {}
        for name in names:
            place = folder / name.replace(", ", "-").replace(" ", "-")
            place.mkdir(parents=True, exist_ok=True)
            print(f"{name}: {run(command, SETTINGS[name], place):.0f} s", flush=True)
            found[name] = tables(place)
    changed = 0
    for name in names[1:]:
        print(f"\n{name} against {names[0]}")
        changed += compare(found[names[0]], found[name])
    print(f"\n{changed} verdicts differ between settings")
    return int(changed > 0)


if __name__ == "__main__":
    sys.exit(main())
