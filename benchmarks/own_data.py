"""A million rows of a user's own data, from a Parquet file to windows: seconds and peak memory.

    python benchmarks/own_data.py

1,000 hourly series of 1,000 steps. Another process writes the table, so that the peak is that of reading
alone. The targets are 3 s and 300 MB.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WRITE = """
import sys
import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
times = pd.date_range("2024-01-01", periods=1000, freq="h")
pd.DataFrame(
    {
        "unique_id": np.repeat([f"series-{number}" for number in range(1000)], 1000),
        "ds": np.tile(times, 1000),
        "y": rng.standard_normal(1_000_000).cumsum(),
    }
).to_parquet(sys.argv[1], index=False)
"""


def main() -> None:
    """Prints both figures."""
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.parquet"
        subprocess.run([sys.executable, "-c", WRITE, str(path)], check=True)
        started, cpu = time.perf_counter(), time.process_time()
        from tsprune.data import from_file

        suite = from_file(path, horizon=24)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{suite}: {seconds:.2f} s ({cpu:.2f} CPU seconds, imports included), peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
