"""The embedded suite: real series in the package, for a first look at any model.

Public series from the wheels of vega_datasets, statsmodels and autots, none of them in GIFT-Eval, with
provenance and licence of each; scripts/build_pocket.py makes the file,
scripts/build_pocket_large.py that of the larger suite.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsprune.data.suite import Configuration, Suite
from tsprune.data.windows import cut_windows, parse_frequency, prediction_length, season_length, window_count

if TYPE_CHECKING:
    import pyarrow as pa

POCKET_FILE = Path(__file__).with_name("pocket.parquet")
LARGE_FILE = Path(__file__).with_name("large.parquet")

# so that no dataset with many series dominates the running time
MAX_CONFIGURATION_WINDOWS = 60


@functools.cache
def pocket() -> Suite:
    """The embedded suite: about 400 windows in 15 configurations, hourly to yearly.

    Horizons, seasons and windows follow GIFT-Eval's rules (short term), but a configuration has at
    most 60 windows: many series get fewer windows each.
    """
    return suite_of(series_table())


@functools.cache
def pocket_large() -> Suite:
    """The embedded suite and more of its kind, for verdicts on small losses.

    Windows are as in `pocket`; a quarterly configuration has the horizon of M4, GIFT-Eval's only one. The
    configurations of `pocket` come first, the same windows.
    """
    more = suite_of(series_table(LARGE_FILE))
    first = pocket()
    return Suite(
        "pocket-large", (*first.configurations, *more.configurations), (*first.skipped, *more.skipped)
    )


def series_table(path: Path = POCKET_FILE) -> pa.Table:
    """One row per series: series, dataset, freq, domain, start, values, source, provenance, licence."""
    import pyarrow.parquet as pq  # 0.1 s

    return pq.read_table(path)


def suite_of(table: pa.Table) -> Suite:
    """Cuts a table such as `series_table` into a suite; series are numbered by their rows."""
    datasets = list(zip(table["dataset"].to_pylist(), table["freq"].to_pylist(), strict=True))
    domains = table["domain"].to_pylist()
    configurations: list[Configuration] = []
    skipped: list[tuple[str, str]] = []
    for dataset, freq in dict.fromkeys(datasets):
        rows = [row for row, key in enumerate(datasets) if key == (dataset, freq)]
        series = [
            table["values"][row].values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            for row in rows
        ]
        # GIFT-Eval's only yearly and quarterly horizons are M4's
        horizon = prediction_length(freq, m4=parse_frequency(freq)[1] in ("YE", "QE"))
        rule = window_count(min(len(values) for values in series), horizon)
        configuration, left_out = cut_windows(
            series,
            name=f"{dataset}/{freq}/short",
            freq=freq,
            horizon=horizon,
            season=season_length(freq),
            windows=min(rule, max(1, MAX_CONFIGURATION_WINDOWS // len(series))),
            domain=domains[rows[0]],
        )
        skipped += left_out
        if configuration is not None:
            configurations.append(configuration)
    return Suite(name="pocket", configurations=tuple(configurations), skipped=tuple(skipped))


def content_hash(table: pa.Table) -> str:
    """SHA-256 over the rows of a table of series, independent of the file's compression."""
    digest = hashlib.sha256()
    for row in table.to_pylist():
        values = np.asarray(row.pop("values"), dtype=np.float32)
        # one NaN for all that mean "missing"
        values[np.isnan(values)] = np.nan
        digest.update(repr(sorted(row.items())).encode())
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()
