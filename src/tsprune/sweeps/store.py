"""The results store: one SQLite file that keeps finished work, also when a process is killed.

One row of `cells` is one finished (or failed) cell, under the digest of all that its numbers depend
on (`tsprune.sweeps.key`). A cell of several batches is kept batch by batch in `parts` until it is
complete. Other results, such as scores and parts of an explanation, are rows of `tables`
(`tsprune.sweeps.kept_tables`). Every batch is one transaction, in WAL mode: a process killed at any
instant loses the batch it was working on and nothing else, and several processes may write to one store.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from tsprune.errors import TspruneError
from tsprune.evaluation import CRPS, MASE, leaderboard_metrics
from tsprune.files import check_file, existing_file, may_write, status, user_path, writing
from tsprune.sweeps.cell_bytes import DamagedRowError, from_bytes, to_bytes
from tsprune.sweeps.key import CellKey
from tsprune.sweeps.sweep_result import CellScores

BUSY_SECONDS = 60.0  # how long a process waits for another one's transaction
NO_ABLATION = "none"

_APPLICATION = 0x74737072  # "tspr", in the file's header
_FORMAT = 1
_COLUMNS = {
    "key": "TEXT PRIMARY KEY",
    "model": "TEXT NOT NULL",
    "checkpoint": "TEXT NOT NULL",
    "ablation": "TEXT NOT NULL",
    "mode": "TEXT NOT NULL",
    "seed": "INTEGER NOT NULL",
    "configuration": "TEXT NOT NULL",
    "domain": "TEXT NOT NULL",
    "num_variates": "INTEGER NOT NULL",
    "windows": "TEXT NOT NULL",
    "protocol": "TEXT NOT NULL",
    "version": "INTEGER NOT NULL",
    "status": "TEXT NOT NULL",
    "error": "TEXT",
    "count": "INTEGER",
    "mase": "REAL",
    "crps": "REAL",
    "spearman_distance": "REAL",
    "seconds": "REAL",
    "finished": "TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP",
}
COLUMNS = tuple(_COLUMNS)
_SCHEMA = (
    f"CREATE TABLE IF NOT EXISTS cells ({', '.join(f'{n} {t}' for n, t in _COLUMNS.items())}, "
    "kept INTEGER NOT NULL, scores BLOB)",
    "CREATE TABLE IF NOT EXISTS parts (key TEXT, batch INTEGER, kept INTEGER NOT NULL, "
    "scores BLOB NOT NULL, PRIMARY KEY (key, batch))",
    "CREATE TABLE IF NOT EXISTS tables (key TEXT PRIMARY KEY, name TEXT NOT NULL, content BLOB NOT NULL)",
)
_TYPES = {"TEXT": "text", "INTEGER": "integer", "REAL": "real"}  # SQLite's names of value types
_UNLIKE = " OR ".join(
    f"typeof({name}) NOT IN ('{_TYPES[kind.split()[0]]}'{'' if 'NOT NULL' in kind else ', ' + repr('null')})"
    for name, kind in _COLUMNS.items()
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """The store's name of a cell.

    key : its digest is the row's name
    model : name given by the user; not part of the key
    domain, num_variates : of the configuration, for the leaderboard's columns
    """

    key: CellKey
    model: str
    domain: str
    num_variates: int


class Store:
    """The results store in the file `path`, created if missing; also a context manager.

    create : False raises if the store does not exist

    Raises TspruneError if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = user_path(path)
        found = status(self.path)
        if found is None and not create:
            raise TspruneError(f"there is no results store {path}; `tsprune sweep --store {path}` makes one")
        if found is None or create:
            check_file(self.path)
        else:
            existing_file(self.path, "results store")
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            # autocommit: this module begins and ends its transactions itself
            self._database = sqlite3.connect(
                f"{self.path.absolute().as_uri()}{'?immutable=1' if self._sealed(create) else ''}",
                timeout=BUSY_SECONDS,
                isolation_level=None,
                uri=True,
            )
        try:
            with self._errors():
                self._open(create=create)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    # --- writing ---------------------------------------------------------------------------------

    def add(
        self,
        *,
        done: Iterable[tuple[Entry, CellScores]] = (),
        failed: Iterable[tuple[Entry, str]] = (),
        parts: Iterable[tuple[Entry, int, CellScores]] = (),
    ) -> None:
        """Stores finished cells, failed cells and finished batches of other cells in one transaction.

        done : replace all rows of the same key, batches included
        failed : (cell, error); a finished cell is not replaced by a failure
        parts : (cell, number of the batch, its scores)
        """
        finished = [_row(entry, scores=scores) for entry, scores in done]
        errors = [_row(entry, error=error) for entry, error in failed]
        batches = [
            (entry.key.digest, batch, scores.forecast is not None, to_bytes(scores))
            for entry, batch, scores in parts
        ]
        names = tuple(n for n in (*COLUMNS, "kept", "scores") if n != "finished")
        marks = ", ".join(f":{name}" for name in names)
        insert = f"INTO cells ({', '.join(names)}) VALUES ({marks})"
        keep_done = "ON CONFLICT (key) DO UPDATE SET status = excluded.status, error = excluded.error, "
        keep_done += "finished = CURRENT_TIMESTAMP WHERE status = 'failed'"
        with self._errors(), self._transaction() as database:
            database.executemany(f"INSERT OR REPLACE {insert}", finished)
            database.executemany(f"INSERT {insert} {keep_done}", errors)
            database.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", batches)
            database.executemany("DELETE FROM parts WHERE key = :key", finished)

    def add_tables(self, key: str, name: str, content: bytes) -> None:
        """Stores tables under a key; `name` tells a reader of the file which they are."""
        with self._errors(), self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO tables VALUES (?, ?, ?)", (key, name, content))

    # --- reading ---------------------------------------------------------------------------------

    def tables(self, key: str) -> bytes | None:
        """The content stored under `key`; None if there is none."""
        with self._errors():
            row = self._database.execute("SELECT content FROM tables WHERE key = ?", (key,)).fetchone()
            if row is not None and not isinstance(row[0], bytes):
                raise DamagedRowError("unreadable tables: not bytes")
            return None if row is None else row[0]

    def finished(self, key: CellKey, *, kept: bool = False, windows: int | None = None) -> CellScores | None:
        """The scores of a finished cell; None if it is not stored.

        kept : only with its forecasts
        windows : number of windows of the cell's configuration; other rows count as damaged
        """
        with self._errors():
            row = self._database.execute(
                "SELECT scores FROM cells WHERE key = ? AND status = 'done' AND kept >= ?", (key.digest, kept)
            ).fetchone()
            return None if row is None else from_bytes(row[0], windows)

    def parts(
        self, key: CellKey, *, kept: bool = False, windows: int | None = None, batches: int | None = None
    ) -> dict[int, CellScores]:
        """Number of the batch -> its scores, for an unfinished cell.

        windows, batches : of the cell's configuration; scores and numbers of others are damaged
        """
        with self._errors():
            rows = self._database.execute(
                "SELECT batch, scores FROM parts WHERE key = ? AND kept >= ?", (key.digest, kept)
            ).fetchall()
            for batch, _ in rows:
                if not isinstance(batch, int) or not 0 <= batch < (batches or batch + 1):
                    raise DamagedRowError(f"no batch {batch!r} of a cell")
            return {batch: from_bytes(scores, windows) for batch, scores in rows}

    def frame(self, where: Mapping[str, str] | None = None) -> pd.DataFrame:
        """One row a cell, without the windows' scores; `where` filters columns by glob pattern.

        Columns: `COLUMNS`; `ablation` holds the addresses, "none" without ablation; `status` is done
        or failed; `count` the windows scored; `finished` is in UTC.

        Raises TspruneError for a column that does not exist.
        """
        condition, patterns = _condition(where or {})
        query = f"SELECT {', '.join(COLUMNS)} FROM cells WHERE {condition} ORDER BY rowid"
        with self._errors():
            self._check_types(condition, patterns)
            rows = self._database.execute(query, patterns).fetchall()
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        frame = frame.rename(columns={"mase": "MASE", "crps": "CRPS"})  # SQL knows no case
        numbers = ["MASE", "CRPS", "spearman_distance", "seconds"]
        return frame.astype(dict.fromkeys(numbers, "float64") | {"count": "Int64"})

    def leaderboard(self, where: Mapping[str, str] | None = None) -> pd.DataFrame:
        """One row per configuration: the columns of `tsprune.evaluation.write_all_results` and the model.

        Raises TspruneError unless the finished cells that `where` selects are of one checkpoint
        under one ablation and one protocol.
        """
        condition, patterns = _condition(where or {})
        query = (
            "SELECT model, configuration, domain, num_variates, scores, windows, checkpoint, ablation, mode, "
            "seed, json_remove(protocol, '$.horizon'), version FROM cells "
            f"WHERE status = 'done' AND count > 0 AND {condition} ORDER BY rowid"
        )
        with self._errors():
            self._check_types(condition, patterns)
            rows = _latest(self._database.execute(query, patterns).fetchall())
            statistics = [from_bytes(row[4]).scores.statistics for row in rows]
        names = [row[1] for row in rows]
        if not rows:
            raise TspruneError(f"no finished cell of {self.path} is selected")
        if len({row[6:] for row in rows}) > 1 or len(set(names)) < len(names):
            raise TspruneError(
                "a leaderboard file is of one checkpoint, ablation and protocol, and "
                f"{len({row[6:] for row in rows})} are selected; "
                "narrow it down, for example with --where ablation=none --where model=NAME"
            )
        records = [
            {"model": row[0], "configuration": row[1], "domain": row[2], "num_variates": row[3]}
            | leaderboard_metrics(one)
            for row, one in zip(rows, statistics, strict=True)
        ]
        return pd.DataFrame.from_records(records)

    def _check_types(self, condition: str, patterns: list[str]) -> None:
        """DamagedRowError if a value has another type than its column, which SQLite itself permits."""
        query = f"SELECT rowid FROM cells WHERE ({condition}) AND ({_UNLIKE}) LIMIT 1"
        found = self._database.execute(query, patterns).fetchone()
        if found is not None:
            raise DamagedRowError(f"cell {found[0]} has values of another type")

    # --- the file --------------------------------------------------------------------------------

    def _open(self, *, create: bool) -> None:
        database = self._database
        identity = database.execute("PRAGMA application_id").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables and identity != _APPLICATION:
            raise TspruneError(f"{self.path} is a database, but not a results store of tsprune")
        if tables and (found := database.execute("PRAGMA user_version").fetchone()[0]) != _FORMAT:
            raise TspruneError(
                f"{self.path} is a results store of format {found}, and this tsprune reads {_FORMAT}; "
                "name a new one"
            )
        if tables == 0 and not create:
            raise TspruneError(f"{self.path} is empty, not a results store")
        self._use_wal()
        database.execute("PRAGMA synchronous=FULL")
        if create and not self._has_all_tables():
            with self._transaction():
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute(f"PRAGMA application_id={_APPLICATION}")
                database.execute(f"PRAGMA user_version={_FORMAT}")

    def _has_all_tables(self) -> bool:
        """False for a new file, and one of a tsprune that kept cells alone."""
        query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'"
        return bool(self._database.execute(query).fetchone()[0] == len(_SCHEMA))

    def _sealed(self, create: bool) -> bool:
        """Whether the store is only read and its folder, where SQLite puts its lock, is not writable."""
        wal = status(self.path.with_name(f"{self.path.name}-wal"))
        return not create and not may_write(self.path.absolute().parent) and not (wal and wal.st_size)

    def _use_wal(self) -> None:
        """Switches a new file to WAL; repeated, as SQLite does not wait for another process that does so."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # the write lock at once: a lock taken later could fail without waiting
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of SQLite and of damaged rows as one line."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError, OverflowError) as error:
            advice = "; another process writes to it: wait until it is done" if "locked" in str(error) else ""
            raise TspruneError(f"cannot use the results store {self.path} ({error}){advice}") from None
        # damaged bytes in the schema are not UTF-8
        except (sqlite3.Error, DamagedRowError, UnicodeDecodeError) as error:
            raise TspruneError(
                f"{self.path} is damaged or not a results store ({error}); move it away to start a new one"
            ) from None


@contextmanager
def open_store(store: Store | Path | None) -> Iterator[Store | None]:
    """The store of `RunOptions.store`; one that is given by its path is closed at the end."""
    if not isinstance(store, Path):
        yield store
        return
    with Store(store) as found:
        yield found


def _latest(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Keeps the last of rows that differ in their scores alone (column 4): the same windows may have been
    forecast in the company of others."""
    return list({(*row[:4], *row[5:]): row for row in rows}.values())


def _condition(where: Mapping[str, str]) -> tuple[str, list[str]]:
    for name in where:
        if name not in COLUMNS:
            raise TspruneError(f"no column {name!r} in a results store; there are: {', '.join(COLUMNS)}")
    return " AND ".join(f"{name} GLOB ?" for name in where) or "1", list(where.values())


def _row(entry: Entry, *, scores: CellScores | None = None, error: str | None = None) -> dict[str, object]:
    key = entry.key
    row: dict[str, object] = {
        "key": key.digest,
        "model": entry.model,
        "checkpoint": key.checkpoint,
        "ablation": " ".join(c.address for c in key.ablation.components) or NO_ABLATION,
        "mode": key.ablation.mode,
        "seed": key.ablation.seed,
        "configuration": key.configuration,
        "domain": entry.domain,
        "num_variates": entry.num_variates,
        "windows": key.windows,
        "protocol": key.protocol,
        "version": key.version,
        "status": "failed",
        "error": error,
        "kept": False,
    }
    row |= dict.fromkeys(("count", "mase", "crps", "spearman_distance", "seconds", "scores"))
    if scores is not None:
        found = scores.scores
        row |= {
            "status": "done",
            "count": len(scores.rows),
            "mase": MASE.of(found.statistics),
            "crps": CRPS.of(found.statistics),
            "spearman_distance": float(found.spearman.mean()) if len(scores.rows) else None,
            "seconds": scores.seconds,
            "kept": scores.forecast is not None,
            "scores": to_bytes(scores),
        }
    return row
