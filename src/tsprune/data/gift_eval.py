"""GIFT-Eval's configurations, read from a user's own copy of the benchmark.

Layout of a copy: `<root>/<dataset>[/<freq>]/{data-*.arrow, dataset_info.json, state.json}`, as
Hugging Face `datasets` saves it. The arrow files are mapped into memory, and contexts are views of them.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import fnmatch
import functools
import importlib.resources
import os
from collections.abc import Sequence
from pathlib import Path

from tsprune.data.suite import Configuration, Suite
from tsprune.data.windows import Series, cut_windows, prediction_length, season_length, window_count
from tsprune.errors import TspruneError
from tsprune.files import status, user_path

LONGEST_NAME = 200  # characters of a pattern that others are compared with


@dataclasses.dataclass(frozen=True)
class BenchmarkEntry:
    """One of the benchmark's 97 configurations.

    name : "<dataset>/<freq>/<term>", in the leaderboard's spelling
    folder : of its data, relative to the root
    """

    name: str
    freq: str
    term: str
    folder: str
    domain: str
    num_variates: int

    @property
    def spellings(self) -> tuple[str, str]:
        """The leaderboard's name and the one from the folder's name, in lower case."""
        return self.name.lower(), f"{self.folder.split('/')[0]}/{self.freq}/{self.term}".lower()


@functools.cache
def table() -> tuple[BenchmarkEntry, ...]:
    """The 97 configurations of the benchmark, sorted by name and term."""
    resource = importlib.resources.files("tsprune.data") / "gift_eval_configurations.csv"
    with resource.open(encoding="utf-8") as lines:
        rows = [(row, term) for row in csv.DictReader(lines) for term in row["terms"].split()]
    return tuple(
        BenchmarkEntry(
            f"{r['dataset']}/{r['freq']}/{term}",
            r["freq"],
            term,
            r["folder"],
            r["domain"],
            int(r["num_variates"]),
        )
        for r, term in rows
    )


def available(root: str | Path | None = None) -> list[str]:
    """Names of the configurations whose data are under `root` (default: environment GIFT_EVAL).

    Raises TspruneError if there is no such directory.
    """
    return [entry.name for entry in _present(_root(root))]


def gift_eval(root: str | Path | None = None, configs: Sequence[str] | str | None = None) -> Suite:
    """Windows of GIFT-Eval, cut by the benchmark's own rules from a copy of its data.

    root : directory of the copy; None takes it from the environment variable GIFT_EVAL
    configs : names or glob patterns, e.g. "ett1/H/short" or ["m4_*/*/short", "LOOP_SEATTLE/5T/long"], in the
        leaderboard's or the folders' spelling, any case; None takes all under `root`

    Multivariate datasets are split into their variates, each a series of its own; models that read several
    variates together forecast those of one row so (see `Suite.univariate`). Series without a
    step of history before their first window are left out and listed in `Suite.skipped`.

    Raises TspruneError for a root without data and for a name that matches nothing.
    """
    from tsprune.data.arrow import read_series  # imports pyarrow, 0.1 s

    directory = _root(root)
    present = _present(directory)
    if not present:
        raise TspruneError(
            f"no GIFT-Eval dataset under {directory}, which should hold folders such as m4_weekly or ett1/H"
        )
    chosen = present if configs is None else _matching(configs, present)
    configurations: list[Configuration] = []
    skipped: list[tuple[str, str]] = []
    datasets: dict[str, tuple[str, list[list[Series]]]] = {}
    for entry in chosen:
        if entry.folder not in datasets:
            datasets[entry.folder] = read_series(directory / entry.folder)
        configuration, left_out = _configuration(entry, *datasets[entry.folder])
        skipped += left_out
        if configuration is not None:
            configurations.append(configuration)
    return Suite(name="gift-eval", configurations=tuple(configurations), skipped=tuple(skipped))


def is_copy(root: Path) -> bool:
    """Whether a directory holds data of the benchmark."""
    return bool(_present(root))


def _root(root: str | Path | None) -> Path:
    chosen = root if root is not None else os.environ.get("GIFT_EVAL")
    if not chosen:
        raise TspruneError("no GIFT-Eval data: pass the directory of your copy or set GIFT_EVAL to it")
    directory = user_path(chosen)
    if status(directory) is None or not directory.is_dir():
        raise TspruneError(f"no directory {directory}; pass the directory of your copy of GIFT-Eval")
    return directory


def _present(root: Path) -> list[BenchmarkEntry]:
    folders = {entry.folder: root / entry.folder for entry in table()}
    data = {name for name, path in folders.items() if path.is_dir() and any(path.glob("data-*.arrow"))}
    return [entry for entry in table() if entry.folder in data]


def _matching(configs: Sequence[str] | str, present: Sequence[BenchmarkEntry]) -> list[BenchmarkEntry]:
    """The present entries that any of the names or patterns selects, in the table's order."""
    wanted: set[str] = set()
    for pattern in [configs] if isinstance(configs, str) else configs:
        found = _select(pattern, present)
        if not found:
            if elsewhere := _select(pattern, table()):
                raise TspruneError(
                    f'this copy of GIFT-Eval lacks the data of "{pattern}": no folder {elsewhere[0].folder}'
                )
            names = {name: entry.name for entry in present for name in entry.spellings}
            close = difflib.get_close_matches(pattern.lower()[:LONGEST_NAME], list(names), n=3, cutoff=0.3)
            near = [names[name] for name in close] or [entry.name for entry in present[:3]]
            hint = ", ".join(dict.fromkeys(near))
            raise TspruneError(f'no GIFT-Eval configuration matches "{pattern}"; close names: {hint}')
        wanted.update(entry.name for entry in found)
    if not wanted:
        raise TspruneError("the list of configs is empty; omit it to take all configurations")
    return [entry for entry in present if entry.name in wanted]


def _select(pattern: str, entries: Sequence[BenchmarkEntry]) -> list[BenchmarkEntry]:
    lower = pattern.strip().strip("/").lower()
    return [e for e in entries if any(fnmatch.fnmatchcase(name, lower) for name in e.spellings)]


def _configuration(
    entry: BenchmarkEntry, freq: str, rows: Sequence[Sequence[Series]]
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
        entities=[row for row, variates in enumerate(rows) for _ in variates],
    )
