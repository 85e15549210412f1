"""One table in every format and layout: the same windows, to the last bit."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pytest

import tsprune
from tests.suites import tiny
from tsprune.data import from_arrays, from_file, from_frame, from_gluonts
from tsprune.errors import TspruneError

HORIZON = {"horizon": 6, "windows": 2}


def long() -> pd.DataFrame:
    """Three daily series of unlike lengths, with a gap in time and a missing value, in no order."""
    rng = np.random.default_rng(5)
    parts = []
    for name, length, start in (
        ("zürich", 40, "2024-01-01"),
        ("b", 35, "2024-02-03"),
        ("c 1", 50, "2023-12-24"),
    ):
        days = pd.date_range(start, periods=length, freq="D")
        parts.append(pd.DataFrame({"unique_id": name, "ds": days, "y": rng.normal(100, 30, length)}))
    table = pd.concat(parts, ignore_index=True)
    table.loc[11, "y"] = np.nan
    return table.drop(index=[20, 21, 60]).reset_index(drop=True)


LONG = long()
EXPECTED = from_frame(LONG, name="mine", **HORIZON).fingerprint


def text(table: pd.DataFrame, **how: Any) -> str:
    return str(table.to_csv(index=False, **how))


def comma_text(table: pd.DataFrame) -> str:
    return text(table, sep=";", decimal=",", date_format="%d.%m.%Y")


def listed(table: pd.DataFrame) -> pd.DataFrame:
    """A row per series, with lists of times and values."""
    return table.groupby("unique_id", sort=False).agg({"ds": list, "y": list}).reset_index()


def folder(path: Path, *, parts: bool) -> None:
    path.mkdir()
    if parts:
        text_of_halves = [text(LONG[:50]), text(LONG[50:])]
        for number, half in enumerate(text_of_halves):
            (path / f"part-{number}.csv").write_text(half)
        return
    for number, name in enumerate(LONG["unique_id"].unique()):
        rows = LONG[LONG["unique_id"] == name]
        (path / f"{number}.csv").write_text(text(rows[["ds", "y"]]))


def gluonts_lines(table: pd.DataFrame) -> str:
    lines = []
    for name, rows in table.groupby("unique_id", sort=False):
        y = rows.set_index("ds")["y"].asfreq("D")
        target = [value if np.isfinite(value) else "NaN" for value in y]
        lines.append(json.dumps({"start": str(y.index[0]), "freq": "D", "target": target, "item_id": name}))
    return "\n".join(lines) + "\n"


def saved(path: Path) -> None:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    Dataset.from_pandas(listed(LONG)).save_to_disk(path)


EXACT: Any = {"double_precision": 15}
WRITERS: dict[str, Callable[[Path], object]] = {
    "mine.csv": lambda path: path.write_text(text(LONG)),
    "mine.tsv": lambda path: path.write_text(text(LONG, sep="\t")),
    "mine.csv.gz": lambda path: path.write_bytes(gzip.compress(text(LONG).encode())),
    "mine.txt": lambda path: path.write_text(comma_text(LONG), encoding="cp1252"),
    "bom/mine.csv": lambda path: path.write_text(text(LONG), encoding="utf-8-sig"),
    "utf16/mine.csv": lambda path: path.write_text(text(LONG), encoding="utf-16"),
    "pipes/mine.csv": lambda path: path.write_text(text(LONG, sep="|", na_rep="N/A")),
    "windows/mine.csv": lambda path: path.write_text(text(LONG, lineterminator="\r\n") + ",,\r\n"),
    "mine.parquet": lambda path: LONG.to_parquet(path),
    "dictionary/mine.parquet": lambda path: LONG.astype({"unique_id": "category"}).to_parquet(path),
    "lists/mine.parquet": lambda path: listed(LONG).to_parquet(path),
    "mine.feather": lambda path: feather.write_feather(pa.Table.from_pandas(LONG), path),
    "mine.json": lambda path: path.write_text(LONG.to_json(orient="records", date_format="iso", **EXACT)),
    "columns/mine.json": lambda path: path.write_text(LONG.to_json(date_format="iso", **EXACT)),
    "table/mine.json": lambda path: path.write_text(LONG.to_json(orient="table", index=False, **EXACT)),
    "spaced/mine.csv": lambda path: path.write_text(text(LONG).replace("\n", "\n\n")),
    "mine.jsonl": lambda path: LONG.to_json(path, orient="records", lines=True, date_format="iso", **EXACT),
    "gluonts/mine.json": lambda path: path.write_text(gluonts_lines(LONG)),
    "series": lambda path: folder(path, parts=False),
    "parts": lambda path: folder(path, parts=True),
    "saved": saved,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    WRITERS[name](path)
    suite = from_file(path, name="mine", **HORIZON)
    assert suite.fingerprint == EXPECTED
    ((gaps,),) = suite.describe()[["gaps"]].values
    assert gaps == (0 if name.startswith("gluonts") else 3)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot(index="ds", columns="unique_id", values="y")[table["unique_id"].unique()]


def unsorted(table: pd.DataFrame) -> pd.DataFrame:
    """Rows in a random order, apart from the first of each series, which decide the series' order."""
    firsts = table.drop_duplicates("unique_id")
    return pd.concat([firsts, table.drop(firsts.index).sample(frac=1, random_state=0)])


FRAMES: dict[str, Callable[[], object]] = {
    "unsorted rows": lambda: unsorted(LONG),
    "other names": lambda: LONG.rename(columns={"unique_id": "Item_ID", "ds": "Timestamp", "y": "target"}),
    "index": lambda: LONG.set_index(["unique_id", "ds"]),
    "repeated rows": lambda: pd.concat([LONG, LONG[10:14]]),
    "text": lambda: LONG.assign(ds=LONG["ds"].dt.strftime("%d/%m/%Y"), y=LONG["y"].astype(object)),
    "periods": lambda: LONG.assign(ds=LONG["ds"].dt.to_period("D")),
    "time zone": lambda: LONG.assign(ds=LONG["ds"].dt.tz_localize("Europe/Zurich")),
    "wide": lambda: wide(LONG),
    "wide by rows": lambda: wide(LONG).T.reset_index(),
    "arrow": lambda: pa.Table.from_pandas(LONG),
    "lists": lambda: listed(LONG),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_every_layout(name: str) -> None:
    assert from_frame(FRAMES[name](), name="mine", **HORIZON).fingerprint == EXPECTED


@pytest.mark.parametrize("lazy", [False, True])
def test_polars(lazy: bool) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame(LONG.to_dict("list"))
    suite = from_frame(frame.lazy() if lazy else frame, name="mine", **HORIZON)
    assert suite.fingerprint == EXPECTED


def regular() -> dict[str, np.ndarray[Any, Any]]:
    return {
        str(name): rows.set_index("ds")["y"].asfreq("D").to_numpy()
        for name, rows in LONG.groupby("unique_id", sort=False)
    }


def test_arrays() -> None:
    series = regular()
    suite = from_arrays(list(series.values()), ids=list(series), freq="D", name="mine", **HORIZON)
    assert suite.fingerprint == EXPECTED
    with pytest.raises(TspruneError, match="give freq"):
        from_arrays([[1.0, 2.0]])


def test_gluonts_datasets() -> None:
    from gluonts.dataset.common import ListDataset
    from gluonts.dataset.pandas import PandasDataset

    entries = [
        {"start": LONG[LONG["unique_id"] == name]["ds"].iloc[0], "target": values, "item_id": name}
        for name, values in regular().items()
    ]
    assert from_gluonts(ListDataset(entries, freq="D"), name="mine", **HORIZON).fingerprint == EXPECTED
    frames = {
        name: rows.set_index("ds")[["y"]].asfreq("D").to_period("D")
        for name, rows in LONG.groupby("unique_id", sort=False)
    }
    assert from_gluonts(PandasDataset(frames, target="y"), name="mine", **HORIZON).fingerprint == EXPECTED


def test_scores_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    LONG.to_parquet(tmp_path / "mine.parquet")
    (tmp_path / "mine.csv").write_text(text(LONG))
    suites = [from_file(tmp_path / f"mine.{suffix}", **HORIZON) for suffix in ("csv", "parquet")]
    suites.append(from_frame(LONG, name="mine", **HORIZON))
    model = tiny("tiny-timesfm")
    tables = [tsprune.evaluate(model, suite).frame.filter(regex="^(?!seconds)") for suite in suites]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
    assert np.isfinite(tables[0]["MASE"]).all()


@pytest.mark.parametrize("context", [None, 9])
def test_a_suite_survives_its_table(context: int | None) -> None:
    suite = from_frame(LONG, name="mine", context=context, **HORIZON)
    again = from_frame(suite.to_frame(), name="mine", context=context, **HORIZON)
    assert again.fingerprint == suite.fingerprint


def test_comments_above_the_header_and_empty_rows_between_times(tmp_path: Path) -> None:
    """As spreadsheets of stocks have them; a header that begins with # is a header."""
    rows = ["2024-01-01,1,", "2024-01-02,2,5", "2024-01-02T07:00,,", "2024-01-03,,6", "2024-01-04,4,7"]
    path = tmp_path / "t.csv"
    for lines in (["# from somewhere", "# 2024", "day,a,b"], ["# of all, in thousands", "#day,a,b"]):
        path.write_text("\n".join([*lines, *rows]))
        (c,) = from_file(path, horizon=1).configurations
        assert (c.freq, [len(x) for x in c.contexts], c.targets.ravel().tolist()) == ("D", [3, 2], [4, 7])
    path.write_text("\n".join(["# one", "# two", "day,a,b", *rows, "2024-01-04T09:00,5,8"]))
    with pytest.raises(TspruneError, match=r"t.csv, line 9: the time is not a whole number of steps"):
        from_file(path, horizon=1)


def test_a_gluonts_dataset_states_its_frequency_beside(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in gluonts_lines(LONG).splitlines()]
    lines = "".join(json.dumps({name: row[name] for name in ("start", "target")}) + "\n" for row in rows)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "data.json").write_text(lines)
    with pytest.raises(TspruneError, match="give --freq"):
        from_file(tmp_path / "test" / "data.json", **HORIZON)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "metadata.json").write_text('{"freq": "D", "prediction_length": 7}')
    assert from_gluonts(tmp_path / "test" / "data.json", name="mine", **HORIZON).fingerprint == EXPECTED


def test_a_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text("ds,y\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n")
    monkeypatch.chdir(tmp_path)
    assert from_file("t.csv", horizon=1).name == "t"


def test_splits_of_a_dataset_are_named(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_pandas(listed(LONG))
    DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "both")
    with pytest.raises(TspruneError, match=r"several splits \(test, train\); name one of these folders"):
        from_file(tmp_path / "both", **HORIZON)
    assert from_file(tmp_path / "both" / "train", name="mine", **HORIZON).fingerprint == EXPECTED


def test_lists_of_several_columns_are_variates() -> None:
    frame = listed(LONG).assign(z=lambda table: [[1.0] * len(times) for times in table["ds"]])
    suite = from_frame(frame, target=["z", "y"], **HORIZON)
    (c,) = suite.configurations
    assert (c.num_variates, suite.describe()["series"].tolist()) == (2, [6])
    assert c.origins is not None
    assert list(dict.fromkeys(c.origins.ids))[:2] == ["zürich/z", "zürich/y"]
    with pytest.raises(TspruneError, match="row 1: the columns z, y differ in length"):
        from_frame(
            frame.assign(
                z=[times[: 30 + row] if row == 1 else times for row, times in enumerate(frame["z"])]
            ),
            target=["z", "y"],
            **HORIZON,
        )
