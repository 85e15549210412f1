"""GIFT-Eval's configurations, read from a user's own copy of the benchmark.

Layout of a copy: `<root>/<dataset>[/<freq>]/{data-*.arrow, dataset_info.json, state.json}`, as
Hugging Face `datasets` saves it. The arrow files are mapped into memory, so contexts are views of
the files and a window costs no copy of its history.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import fnmatch
import functools
import importlib.resources
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsprune.data.suite import Configuration, Suite
from tsprune.data.windows import cut_windows, prediction_length, season_length, window_count
from tsprune.errors import TspruneError

Series = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of the 97 configurations, as the benchmark defines it.

    name : the leaderboard's name, "<dataset>/<freq>/<term>" in lower case but for the frequency
    folder : where its data are, relative to the root
    """

    name: str
    freq: str
    term: str
    folder: str
    domain: str
    num_variates: int

    @property
    def spellings(self) -> tuple[str, str]:
        """The leaderboard's name and the one made of the folder's, in lower case."""
        return self.name.lower(), f"{self.folder.split('/')[0]}/{self.freq}/{self.term}".lower()


@functools.cache
def table() -> tuple[Entry, ...]:
    """The 97 configurations of the benchmark, sorted by name and term."""
    resource = importlib.resources.files("tsprune.data") / "gift_eval_configurations.csv"
    with resource.open(encoding="utf-8") as lines:
        return tuple(
            Entry(
                name=f"{row['dataset']}/{row['freq']}/{term}",
                freq=row["freq"],
                term=term,
                folder=row["folder"],
                domain=row["domain"],
                num_variates=int(row["num_variates"]),
            )
            for row in csv.DictReader(lines)
            for term in row["terms"].split()
        )


def available(root: str | Path | None = None) -> list[str]:
    """Names of the configurations whose data are under `root` (default: environment GIFT_EVAL).

    Raises TspruneError if there is no such directory.
    """
    directory = _root(root)
    return [entry.name for entry in table() if _has_data(directory / entry.folder)]


def gift_eval(root: str | Path | None = None, configs: Sequence[str] | str | None = None) -> Suite:
    """Windows of GIFT-Eval, cut by the benchmark's own rules from a copy of its data.

    root : directory of the copy; None takes it from the environment variable GIFT_EVAL
    configs : names or glob patterns, e.g. "ett1/H/short" or ["m4_*/*/short", "LOOP_SEATTLE/5T/long"];
        leaderboard's and folders' spellings, any case; None takes all that are under `root`

    Multivariate datasets are split into their variates, each a series of its own. Series without a
    step of history before their first window are left out and listed in `Suite.skipped`.

    Raises TspruneError for a root without data and for a name that matches nothing.
    """
    directory = _root(root)
    present = [entry for entry in table() if _has_data(directory / entry.folder)]
    if not present:
        raise TspruneError(
            f"no GIFT-Eval dataset under {directory}; it should hold folders such as m4_weekly or ett1/H"
        )
    chosen = present if configs is None else _matching(configs, present)
    configurations: list[Configuration] = []
    skipped: list[tuple[str, str]] = []
    datasets: dict[str, tuple[str, list[list[Series]]]] = {}
    for entry in chosen:
        if entry.folder not in datasets:
            datasets[entry.folder] = _read(directory / entry.folder)
        configuration, left_out = _configuration(entry, *datasets[entry.folder])
        skipped += left_out
        if configuration is not None:
            configurations.append(configuration)
    return Suite(name="gift-eval", configurations=tuple(configurations), skipped=tuple(skipped))


def _root(root: str | Path | None) -> Path:
    chosen = root if root is not None else os.environ.get("GIFT_EVAL")
    if not chosen:
        raise TspruneError("no GIFT-Eval data: pass the directory of your copy or set GIFT_EVAL to it")
    directory = Path(chosen).expanduser()
    if not directory.is_dir():
        raise TspruneError(f"no directory {directory}; pass the directory of your copy of GIFT-Eval")
    return directory


def _has_data(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("data-*.arrow"))


def _matching(configs: Sequence[str] | str, present: Sequence[Entry]) -> list[Entry]:
    """The present entries that any of the names or patterns selects, in the table's order."""
    wanted: set[str] = set()
    for pattern in [configs] if isinstance(configs, str) else configs:
        found = _select(pattern, present)
        if not found:
            raise TspruneError(_no_match(pattern, present))
        wanted.update(entry.name for entry in found)
    if not wanted:
        raise TspruneError("no configuration asked for: the list of configs is empty; leave it out for all")
    return [entry for entry in present if entry.name in wanted]


def _select(pattern: str, entries: Sequence[Entry]) -> list[Entry]:
    lower = pattern.strip().strip("/").lower()
    return [e for e in entries if any(fnmatch.fnmatchcase(name, lower) for name in e.spellings)]


def _no_match(pattern: str, present: Sequence[Entry]) -> str:
    elsewhere = _select(pattern, table())
    if elsewhere:
        return f'the data of "{pattern}" are not in this copy of GIFT-Eval: no folder {elsewhere[0].folder}'
    names = {name: entry.name for entry in present for name in entry.spellings}
    close = difflib.get_close_matches(pattern.lower(), list(names), n=3, cutoff=0.3)
    hint = ", ".join(dict.fromkeys(names[name] for name in close)) or ", ".join(e.name for e in present[:3])
    return f'no GIFT-Eval configuration matches "{pattern}"; close names: {hint}'


def _configuration(
    entry: Entry, freq: str, rows: Sequence[Sequence[Series]]
) -> tuple[Configuration | None, list[tuple[str, str]]]:
    """Cuts one dataset by the frequency of its first row, as GIFT-Eval does."""
    m4 = "m4" in entry.folder
    try:
        horizon = prediction_length(freq, entry.term, m4=m4)
        season = season_length(freq)
    except TspruneError as error:
        return None, [(entry.name, str(error))]
    shortest = min((len(variates[0]) if variates else 0 for variates in rows), default=0)
    return cut_windows(
        [variate for variates in rows for variate in variates],
        name=entry.name,
        freq=entry.freq,
        horizon=horizon,
        season=season,
        windows=window_count(shortest, horizon, m4=m4),
        num_variates=entry.num_variates,
        domain=entry.domain,
    )


# --- arrow files ---------------------------------------------------------------------------------


def _read(folder: Path) -> tuple[str, list[list[Series]]]:
    """Frequency of the first row, and per row its variates as float32 views of the mapped files."""
    import pyarrow as pa

    freq: str | None = None
    rows: list[list[Series]] = []
    for path in _files(folder):
        try:
            batches = _record_batches(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise TspruneError(f"cannot read {path} ({error}); download this dataset again") from error
        for batch in batches:
            if missing := {"freq", "target"} - set(batch.schema.names):
                raise TspruneError(f"{path} has no column {', '.join(sorted(missing))}; is it GIFT-Eval's?")
            if freq is None and batch.num_rows:
                freq = batch.column("freq")[0].as_py()
            rows += _variates(batch.column("target"))
    if freq is None:
        raise TspruneError(f"{folder} holds no series; download this dataset again")
    return freq, rows


def _files(folder: Path) -> list[Path]:
    """The dataset's arrow files in order: what state.json lists, else what is there."""
    state = folder / "state.json"
    if not state.is_file():
        return sorted(folder.glob("data-*.arrow"))
    try:
        listed = [folder / entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise TspruneError(f"{state} is damaged; download this dataset again") from error
    for path in listed:
        if not path.is_file():
            raise TspruneError(f"{state} lists {path.name}, which is missing; download this dataset again")
    return listed


def _record_batches(path: Path) -> list[Any]:
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return list(pa.ipc.open_stream(source))
    except pa.ArrowInvalid:
        source.seek(0)
        reader = pa.ipc.open_file(source)
        return [reader.get_batch(index) for index in range(reader.num_record_batches)]


def _bounds(lists: Any) -> NDArray[np.int64]:
    """Where each list starts and ends in `lists.values`, [len(lists) + 1]."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(lists.type):
        steps = np.arange(len(lists) + 1, dtype=np.int64) + lists.offset
        return np.asarray(steps * lists.type.list_size)
    return np.asarray(lists.offsets.to_numpy(zero_copy_only=False), dtype=np.int64)


def _variates(targets: Any) -> list[list[Series]]:
    """Per row the list of its variates; [time] rows have one, [dim][time] rows have dim."""
    import pyarrow as pa

    outer, inner = _bounds(targets), targets.values
    if pa.types.is_nested(inner.type):
        bounds, flat = _bounds(inner), _flat(inner.values)
        series = [flat[start:stop] for start, stop in itertools.pairwise(bounds)]
        return [series[start:stop] for start, stop in itertools.pairwise(outer)]
    flat = _flat(inner)
    return [[flat[start:stop]] for start, stop in itertools.pairwise(outer)]


def _flat(values: Any) -> Series:
    # a null becomes NaN; without nulls this is a view
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32)
