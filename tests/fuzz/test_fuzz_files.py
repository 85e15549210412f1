"""Files of all kinds, damaged and made up: each is read, or refused in one line."""

from __future__ import annotations

import io
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsprune.data import gift_eval
from tsprune.errors import LINE, TspruneError
from tsprune.evaluation import WindowStatistics
from tsprune.pruning import Plan
from tsprune.pruning.training_state import read_state, write_state
from tsprune.sweeps import CLEAN, Store
from tsprune.sweeps.cell_bytes import DamagedRowError, from_bytes, to_bytes
from tsprune.sweeps.key import CellKey
from tsprune.sweeps.store import COLUMNS, Entry
from tsprune.sweeps.sweep_result import CellScores, WindowScores

FUZZ = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def answered(work: Callable[[], object]) -> None:
    """Done, or refused in one printable line."""
    said = "done"
    try:
        work()
    except TspruneError as error:
        said = str(error)
    assert said.isprintable()
    assert 0 < len(said) <= LINE


def damaged(content: bytes, seed: int) -> bytes:
    """Bytes set, cut off or added, here and there."""
    rng = random.Random(seed)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    if rng.random() < 0.3:
        changed = changed[: rng.randrange(len(changed))]
    return bytes(changed) + (rng.randbytes(rng.randrange(64)) if rng.random() < 0.1 else b"")


# --- plans ---------------------------------------------------------------------------------------

PLAN = {"version": 1, "model": "m", "family": "f", "checkpoint": "", "components": ["stack.0.mlp"]}


@FUZZ
@given(st.sampled_from([*PLAN, "provenance"]), JSON | st.just(...), st.integers(0, 9))
def test_plans(tmp_path: Path, field: str, value: Any, seed: int) -> None:
    stated = {name: one for name, one in {**PLAN, field: value}.items() if one is not ...}
    text = json.dumps(stated).encode()
    (tmp_path / "plan").write_bytes(text if seed < 6 else damaged(text, seed + len(text)))
    answered(lambda: Plan.load(tmp_path / "plan"))


# --- resume states -------------------------------------------------------------------------------

KEY = {"steps": 5, "suite": "abc"}
CONTENT = {"best": {"w": torch.arange(3.0)}, "step": 2, "scores": [(0, 1.5)], "finished": False}


@FUZZ
@given(st.integers(0, 10**6))
def test_states_with_damaged_bytes(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "state"
    write_state(path, KEY, CONTENT)
    path.write_bytes(damaged(path.read_bytes(), seed))
    answered(lambda: read_state(path, KEY))


VALUES = JSON | st.builds(torch.zeros, st.integers(0, 3)) | st.just(...)


@FUZZ
@given(st.sampled_from(["format", "key", "content", "seal"]), VALUES)
def test_states_of_other_things(tmp_path: Path, field: str, value: Any) -> None:
    path = tmp_path / "state"
    write_state(path, KEY, CONTENT)
    whole = torch.load(path, weights_only=True)
    whole[field] = value
    torch.save({name: one for name, one in whole.items() if one is not ...}, path)
    with pytest.raises(TspruneError) as error:
        read_state(path, KEY)
    assert str(error.value).isprintable()


# --- stores --------------------------------------------------------------------------------------


def scores() -> CellScores:
    fields = {name: np.ones(3) for name in WindowStatistics.__dataclass_fields__}
    return CellScores(np.arange(3), WindowScores(WindowStatistics(**fields), np.zeros(3)), None, 0.1)


ENTRY = Entry(CellKey("a", CLEAN, "c/D/short", "w", "b", "{}", "r"), "m", "d", 1)


def read_everything(path: Path) -> None:
    with Store(path, create=False) as store:
        store.frame()
        store.finished(ENTRY.key, windows=3)
        store.parts(ENTRY.key, windows=3, batches=1)
        store.leaderboard()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Store(tmp_path / "store") as opened:
        opened.add(done=[(ENTRY, scores())])
    return tmp_path / "store"


@FUZZ
@given(st.integers(0, 10**6))
def test_stores_with_damaged_bytes(store: Path, seed: int) -> None:
    whole = store.read_bytes()
    try:
        store.write_bytes(damaged(whole, seed))
        answered(lambda: read_everything(store))
    finally:
        for name in (store, store.with_name("store-wal"), store.with_name("store-shm")):
            name.unlink(missing_ok=True)
        store.write_bytes(whole)


CELLS = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
)


@FUZZ
@given(st.sampled_from([*COLUMNS, "kept", "scores"]), CELLS)
def test_stores_with_values_of_other_types(store: Path, column: str, value: Any) -> None:
    database = sqlite3.connect(store, isolation_level=None)
    try:
        database.execute("BEGIN")
        kept = database.execute("SELECT * FROM cells").fetchall()
        try:
            database.execute(f"UPDATE cells SET {column} = ?", (value,))
        except (sqlite3.IntegrityError, UnicodeEncodeError):
            database.execute("ROLLBACK")
            return
        database.execute("COMMIT")
        answered(lambda: read_everything(store))
        database.execute("DELETE FROM cells")
        database.execute(f"INSERT INTO cells VALUES ({', '.join('?' * len(kept[0]))})", kept[0])
    finally:
        database.close()


ARRAYS = st.sampled_from(
    [
        *(
            np.zeros(shape, kind)
            for shape in ((), (0,), (3,), (2, 3), (14, 3))
            for kind in ("f8", "i8", "U3", "?")
        ),
        np.array([2, 1, 0]),
        np.array([0, 0, 1]),
        np.array([-1, 0, 1]),
        np.array([0, 1, 3]),
        np.array(1e300),
        np.zeros(3, "c16"),
        ...,
    ]
)


@FUZZ
@given(
    st.sampled_from(["rows", "spearman", "statistics", "fields", "seconds", "quantiles", "levels"]), ARRAYS
)
def test_scores_of_other_shapes(name: str, value: Any) -> None:
    with np.load(io.BytesIO(to_bytes(scores()))) as arrays:
        changed = {**dict(arrays), name: value}
    buffer = io.BytesIO()
    np.savez(buffer, **{key: one for key, one in changed.items() if one is not ...})
    try:
        found = from_bytes(buffer.getvalue(), windows=3)
        assert len(found.rows) == len(found.scores.spearman) == len(found.scores.statistics)
    except DamagedRowError:
        pass


# --- GIFT-Eval -----------------------------------------------------------------------------------

SERIES = [float(step) for step in range(40)]
TARGETS = st.sampled_from(
    [
        *(
            [value] * 3
            for value in ("text", b"bytes", 1.0, 3, True, None, [], [[]], {"a": 1.0}, [["a"]], [b"a"])
        ),
        *(
            [value] * 3
            for value in ([[SERIES]], [SERIES, SERIES[:5]], [SERIES, []], [None], [{"a": 1}], [1e300])
        ),
        [SERIES, None, SERIES],
        [SERIES, [], SERIES],
        [[SERIES], [], [SERIES]],
        [[SERIES], [None], [SERIES]],
        [SERIES, SERIES[:3], SERIES],
        [[float("inf")] * 40, [float("nan")] * 40, [None] * 40],
    ]
)
FREQUENCIES = st.sampled_from(
    [
        *(
            [value] * 3
            for value in ("W", "", "0W", "999999W", "nonsense", "W-XXX", "-1W", "1.5W", 7, 1.5, None)
        ),
        *([value] * 3 for value in (b"W", ["W"], "\x1b[31m", "W" * 10_000, "9" * 9_000 + "W", "\u0661W")),
        ["W", "D", "W"],
        ["W", None, "W"],
        [None, "W", "W"],
        ["W-SUN", "W", "1W"],
    ]
)


def write_arrow(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def windows(root: Path) -> None:
    gift_eval(root).require_windows()


@FUZZ
@given(TARGETS | st.just(...), FREQUENCIES | st.just(...))
def test_gift_eval_columns(tmp_path: Path, target: Any, freq: Any) -> None:
    columns = {"freq": freq, "target": target}
    given_columns = {name: pa.array(one) for name, one in columns.items() if one is not ...}
    write_arrow(tmp_path / "hospital" / "data-0.arrow", given_columns or {"other": [1]})
    answered(lambda: windows(tmp_path))


@FUZZ
@given(st.integers(0, 10**6))
def test_gift_eval_with_damaged_bytes(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "hospital" / "data-0.arrow"
    write_arrow(path, {"freq": ["ME"] * 3, "target": [SERIES] * 3})
    path.write_bytes(damaged(path.read_bytes(), seed))
    answered(lambda: windows(tmp_path))


@FUZZ
@given(JSON)
def test_gift_eval_listings(tmp_path: Path, listing: Any) -> None:
    write_arrow(tmp_path / "hospital" / "data-0.arrow", {"freq": ["ME"] * 3, "target": [SERIES] * 3})
    for stated in (listing, {"_data_files": listing}, {"_data_files": [{"filename": listing}]}):
        (tmp_path / "hospital" / "state.json").write_text(json.dumps(stated))
        answered(lambda: windows(tmp_path))
