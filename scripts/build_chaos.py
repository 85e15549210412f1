"""Builds the embedded chaotic trajectories, src/tsprune/data/chaos/chaos.parquet, from their equations.

    python scripts/build_chaos.py

Chaos amplifies the last bit, so another kind of processor gives other numbers: this script documents how
the file was made and cannot make it again bit for bit elsewhere. The content's hash is printed and recorded
in tests/data/test_chaos.py.
"""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tsprune.data.chaos import CHAOS_FILE, SYSTEMS, integrated
from tsprune.data.pocket import content_hash

MAX_BYTES = 2**20


def table() -> pa.Table:
    """One row a trajectory, in the order of `SYSTEMS`."""
    source = (
        f"scripts/build_chaos.py with scipy {version('scipy')}, numpy {np.__version__} "
        f"on {platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    )
    rows = [
        {
            "system": name,
            "seed": seed,
            "values": values,
            "source": source,
            "provenance": f"integrated from the equations in {system.reference}",
            "licence": "Apache-2.0 (made for tsprune)",
        }
        for name, system in SYSTEMS.items()
        for seed, values in enumerate(integrated(name, 0))
    ]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    columns["values"] = pa.array(columns["values"], pa.list_(pa.float32()))
    return pa.table(columns)


def main() -> None:
    """Builds the file and prints its size and the hash of its content."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=CHAOS_FILE)
    output: Path = parser.parse_args().output
    made = table()
    pq.write_table(
        made,
        output,
        compression="zstd",
        compression_level=19,
        use_dictionary=False,
        column_encoding={"values.list.element": "BYTE_STREAM_SPLIT"},
    )
    size = output.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{output.name} has {size} bytes, more than {MAX_BYTES}")
    print(f"{made.num_rows} trajectories of {len(SYSTEMS)} systems, {size / 1024:.0f} KiB")
    print(f"content {content_hash(made)}")


if __name__ == "__main__":
    main()
