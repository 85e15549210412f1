"""Tables in a store: they come back to the last bit, and only for the same work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.suites import small_suite, tiny
from tsprune.errors import TspruneError
from tsprune.run_options import RunOptions
from tsprune.sweeps import Store
from tsprune.sweeps.kept_tables import KeptTables

AWKWARD = pd.DataFrame(
    {
        "double": [0.1, -0.0, np.nan, np.inf, 5e-324, 1 / 3],
        "single": np.array([0.1, 1e-45, np.nan, -np.inf, 3.4e38, 1 / 3], dtype=np.float32),
        "whole": np.array([0, -1, 2**62, 3, 4, 5]),
        "nullable": pd.array([1, None, 3, None, 5, 6], dtype="Int64"),
        "truth": [True, False, True, True, False, False],
        "text": ["a", "", "ü", "\x1b", "NaN", "null"],
        "mixed": pd.Series([None, 1, 2.5, "x", float("nan"), True], dtype=object),
    }
)


def kept(store: Store, *, seed: int = 0, batch_size: int = 64, model: str = "tiny-timesfm") -> KeptTables:
    return KeptTables(store, tiny(model), RunOptions(seed=seed, batch_size=batch_size))


def counted() -> tuple[list[int], Callable[[], dict[str, pd.DataFrame]]]:
    made: list[int] = []

    def make() -> dict[str, pd.DataFrame]:
        made.append(len(made))
        return {"awkward": AWKWARD, "empty": pd.DataFrame()}

    return made, make


def test_tables_come_back_to_the_last_bit(tmp_path: Path) -> None:
    made, make = counted()
    with Store(tmp_path / "s") as store:
        kept(store).get("scores", make)
    with Store(tmp_path / "s") as store:
        found = kept(store).get("scores", make)
    assert made == [0]
    pd.testing.assert_frame_equal(found["awkward"], AWKWARD, check_exact=True)
    for name in ("double", "single"):
        assert found["awkward"][name].to_numpy().tobytes() == AWKWARD[name].to_numpy().tobytes()
    assert found["empty"].empty
    assert found["empty"].columns.empty


def test_other_work_is_done_anew(tmp_path: Path) -> None:
    made, make = counted()
    suite = small_suite()
    with Store(tmp_path / "s") as store:
        for tables in (kept(store), kept(store, seed=1), kept(store, batch_size=2)):
            tables.get("scores", make, suite)
        kept(store, model="tiny-moirai").get("scores", make, suite)
        kept(store).get("lens", make, suite)
        kept(store).get("scores", make, suite.only(["first/*"]))
        kept(store).get("scores", make, suite, scores=["output_norm"])
        assert made == list(range(7))
        kept(store).get("scores", make, suite, scores=["output_norm"])
        assert made == list(range(7))


def test_an_error_is_not_kept_and_no_store_keeps_nothing(tmp_path: Path) -> None:
    made, make = counted()

    def fail() -> dict[str, pd.DataFrame]:
        raise TspruneError("no gradient")

    with Store(tmp_path / "s") as store:
        with pytest.raises(TspruneError, match="no gradient"):
            kept(store).get("scores", fail)
        kept(store).get("scores", make)
    nothing = KeptTables(None, tiny("tiny-timesfm"), RunOptions())
    for _ in range(2):
        nothing.get("scores", make)
    assert made == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_damaged_tables_are_named(tmp_path: Path, content: bytes) -> None:
    _, make = counted()
    with Store(tmp_path / "s") as store:
        kept(store).get("scores", make)
        store._database.execute("UPDATE tables SET content = ?", (content,))
        with pytest.raises(TspruneError, match="is damaged"):
            kept(store).get("scores", make)


def test_a_store_of_cells_alone_gets_the_table(tmp_path: Path) -> None:
    """Such as one of an earlier tsprune."""
    made, make = counted()
    with Store(tmp_path / "s") as store:
        store._database.execute("DROP TABLE tables")
    with Store(tmp_path / "s", create=False) as store:
        assert store.frame().empty
    for _ in range(2):
        with Store(tmp_path / "s") as store:
            kept(store).get("scores", make)
    assert made == [0]
