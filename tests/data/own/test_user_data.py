"""A user's table as a suite: windows, frequencies, gaps, variates and options, worked by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsprune.data import from_arrays, from_fev, from_file, from_frame, pocket
from tsprune.data.own.own_options import OwnOptions
from tsprune.errors import TspruneError


def table(count: int, freq: str = "D", start: str = "2024-01-01", **columns: Any) -> pd.DataFrame:
    times = pd.date_range(start, periods=count, freq=freq)
    return pd.DataFrame({"ds": times, "y": np.arange(count, dtype=float)} | columns)


def test_windows_by_hand() -> None:
    suite = from_frame(table(10), horizon=2, windows=3, step=1, context=4, season=7)
    (c,) = suite.configurations
    assert [context.tolist() for context in c.contexts] == [[2, 3, 4, 5], [3, 4, 5, 6], [4, 5, 6, 7]]
    assert c.targets.tolist() == [[6, 7], [7, 8], [8, 9]]
    assert (c.name, c.freq, c.season, c.series.tolist()) == ("data/D/2", "D", 7, [0, 0, 0])
    assert c.origins is not None
    assert c.origins.starts.astype(str).tolist() == [f"2024-01-0{day}T00:00:00.000000" for day in (3, 4, 5)]
    assert str(c.origins.times(2, 4, 2)) == "['2024-01-09T00:00:00.000000' '2024-01-10T00:00:00.000000']"


@pytest.mark.parametrize(("length", "count"), [(7, 1), (60, 1), (61, 2), (250, 5), (900, 5)])
def test_as_many_windows_as_a_tenth_asks_for(length: int, count: int) -> None:
    assert len(from_frame(table(length), horizon=6)) == count


def test_a_horizon_of_a_season_by_default() -> None:
    (c,) = from_frame(table(100, "h")).configurations
    assert (c.horizon, c.season) == (24, 24)
    with pytest.raises(TspruneError, match="the frequency D has no season to forecast; give --horizon"):
        from_frame(table(100))
    assert from_frame(table(100), season=7).configurations[0].horizon == 7


def test_gaps_are_missing_and_counted() -> None:
    frame = table(30).drop(index=[0, 7, 8, 29])
    frame.loc[12, "y"] = np.nan
    frame.loc[28, "y"] = np.inf  # missing, at the end: no window can use it
    suite = from_frame(frame, horizon=3)
    (c,) = suite.configurations
    whole = np.concatenate([c.contexts[0], c.targets[0]])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(whole)), [6, 7, 11])
    assert whole[[0, -1]].tolist() == [1, 27]
    assert suite.describe()["gaps"].tolist() == [2]


def test_a_configuration_per_frequency() -> None:
    parts = [
        table(40, "D", unique_id="day"),
        table(40, "W", unique_id="week"),
        table(40, "h", unique_id="hour"),
    ]
    parts += [
        table(50, "D", unique_id="other"),
        table(2, "h", unique_id="short"),
        table(30, "D", unique_id="none"),
    ]
    frame = pd.concat(parts)
    frame.loc[frame["unique_id"] == "none", "y"] = np.nan
    suite = from_frame(frame, horizon=4)
    assert {c.name: len(np.unique(c.series)) for c in suite.configurations} == {
        "data/D/4": 2,
        "data/W/4": 1,
        "data/h/4": 1,
    }
    assert suite.skipped[0][0] == "short"
    assert "2 times are too few" in suite.skipped[0][1]
    assert suite.skipped[1] == ("none", "no value")
    # with a frequency for all, two times are enough, but not for a window
    hours = from_frame(frame[frame["unique_id"].isin(["hour", "short"])], horizon=4, freq="h")
    assert hours.skipped == (("data/h/4, short", "2 steps; 1 windows of 4 need at least 5"),)


def test_several_targets_are_variates() -> None:
    frame = table(30, z=np.ones(30), other=0.0)
    suite = from_frame(frame, horizon=4, target=["z", "y"])
    (c,) = suite.configurations
    assert c.num_variates == 2
    assert c.origins is not None
    assert list(dict.fromkeys(c.origins.ids)) == ["z", "y"]
    wide = from_frame(frame[["ds", "y", "other"]].rename(columns={"y": "sales"}), horizon=4).configurations[0]
    assert (wide.num_variates, len(np.unique(wide.series))) == (1, 2)
    (multi,) = from_arrays([np.ones((3, 20)), np.ones((3, 25))], freq="h", horizon=4).configurations
    assert (multi.num_variates, len(np.unique(multi.series))) == (3, 6)


def test_named_columns() -> None:
    frame = table(
        30, unique_id="A", when=pd.date_range("2000-01-01", periods=30, freq="MS"), shop="B", sold=2.0
    )
    suite = from_frame(frame, horizon=4, id_column="shop", time_column="when", target="sold")
    (c,) = suite.configurations
    assert (c.freq, c.targets[0, 0]) == ("ME", 2)
    assert c.origins is not None
    assert c.origins.ids[0] == "B"
    assert suite.about == "ids: shop; times: when; values: sold"
    for option in ("id_column", "time_column", "target"):
        with pytest.raises(
            TspruneError, match=rf"no column 'sould' for --{option.replace('_', '-')}; columns: sold"
        ):
            from_frame(frame, horizon=4, **{option: "sould"})


def shops(**ids: list[object]) -> pd.DataFrame:
    """A table of 30 days with a series per combination of ids."""
    parts = [table(30, **dict(zip(ids, names, strict=True))) for names in itertools.product(*ids.values())]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(y=np.arange(len(frame)) * 1.5)


@pytest.mark.parametrize(
    ("ids", "about", "series"),
    [
        ({"store_nbr": [1, 2]}, "store_nbr", 2),
        ({"place": ["a", "b"]}, "place", 2),
        ({"item": [7, 8], "store": [1, 2]}, "item and store", 4),
        ({"region": ["a", "b"], "shop": ["x", "y"], "kind": ["m", "n"]}, "region and shop and kind", 8),
        ({"country": ["NA", "None"]}, "country", 2),
    ],
)
def test_ids_are_the_columns_that_tell_times_apart(
    ids: dict[str, list[object]], about: str, series: int
) -> None:
    suite = from_frame(shops(**ids), horizon=4)
    assert suite.about == f"ids: {about}; times: ds; values: y"
    assert suite.describe()["series"].tolist() == [series]


def test_one_second_value_does_not_make_a_label_an_id() -> None:
    frame = table(40, weather=["sun", "rain"] * 20)
    again = pd.concat([frame, frame[3:4].assign(y=99.0, weather="snow")])
    with pytest.raises(TspruneError, match="row 40: a second value at the time of row 3"):
        from_frame(again, horizon=4)


def test_times_in_several_columns() -> None:
    months = pd.date_range("2020-01-01", periods=40, freq="MS")
    hours = pd.date_range("2024-01-01", periods=96, freq="h")
    y = np.arange(96) * 1.5
    for columns, freq in (
        ({"Year": months.year, "Month": months.month, "y": y[:40]}, "ME"),
        ({"Year": months.year, "Month": months.strftime("%b"), "y": y[:40]}, "ME"),
        ({"date": hours.normalize(), "hour": hours.hour, "y": y}, "h"),
        ({"date": hours.strftime("%d.%m.%Y"), "Hour": hours.hour + 1, "y": y}, "h"),
    ):
        (c,) = from_frame(pd.DataFrame(columns), horizon=4).configurations
        assert c.freq == freq
        assert c.targets[-1].tolist() == columns["y"][-4:].tolist()


def test_series_that_do_not_overlap_keep_their_ids() -> None:
    frame = pd.concat([table(30, unique_id="A"), table(30, start="2025-01-01", unique_id="B")])
    assert from_frame(frame, horizon=4).describe()["series"].tolist() == [2]


def test_wide_rows_with_numbered_columns_need_a_frequency() -> None:
    frame = pd.DataFrame(np.arange(60.0).reshape(3, 20), columns=[f"V{number}" for number in range(2, 22)])
    frame.insert(0, "V1", ["M1", "M2", "M3"])
    with pytest.raises(TspruneError, match="give --freq"):
        from_frame(frame, horizon=4)
    (c,) = from_frame(frame, horizon=4, freq="ME").configurations
    assert (len(np.unique(c.series)), c.targets[0].tolist()) == (3, [16, 17, 18, 19])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 0}, "the horizon must be at least 1"),
        ({"windows": 1.5}, "the windows must be a whole number"),
        ({"freq": "often"}, "unknown frequency"),
        ({"target": [3]}, "a column's name must be text"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TspruneError, match=words):
        OwnOptions(**options)


@pytest.mark.parametrize("thing", [None, 3, "mine.csv", [1, 2], {"y": [1]}, object()])
def test_other_objects_are_refused(thing: object) -> None:
    with pytest.raises(TspruneError, match="is not a data frame"):
        from_frame(thing, horizon=4)


def test_rows_of_a_folder_are_named_in_their_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ds,y\n2024-01-01,1\n2024-01-02,2\n")
    (tmp_path / "b.csv").write_text("ds,y\n2024-01-03,3\n2024-01-04,four\n2024-01-05,5\n")
    with pytest.raises(TspruneError, match=r"b\.csv, line 3: 'four'"):
        from_file(tmp_path, horizon=1)
    (tmp_path / "b.csv").write_text("ds,z\n2024-01-03,3\n")
    with pytest.raises(TspruneError, match=r"differ in columns \(y, z\)"):
        from_file(tmp_path, horizon=1)


# --- fev -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Window:
    """A window of `Task`, with the interface of fev's."""

    task: Task
    cutoff: int

    def get_input_data(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return [row | {"target": row["target"][: self.cutoff]} for row in self.task.rows], []

    def get_ground_truth(self) -> list[dict[str, Any]]:
        stop = self.cutoff + self.task.horizon
        return [row | {"target": row["target"][self.cutoff : stop]} for row in self.task.rows]


@dataclasses.dataclass
class Task:
    """A stand-in for `fev.Task`, whose package cannot be installed beside the others."""

    rows: list[dict[str, Any]]
    horizon: int = 2
    seasonality: int = 7
    freq: str = "D"
    id_column: str = "id"
    target_columns: tuple[str, ...] = ("target",)
    task_name: str = "my task"

    def iter_windows(self) -> Iterator[Window]:
        yield from (Window(self, cutoff) for cutoff in (4, 6))


def test_a_fev_task_keeps_its_windows() -> None:
    suite = from_fev(Task([{"id": "A", "target": list(range(8))}, {"id": "B", "target": [9.0] * 8}]))
    (c,) = suite.configurations
    assert (c.name, c.season, c.series.tolist()) == ("my_task/D/2", 7, [0, 0, 1, 1])
    assert [context.tolist() for context in c.contexts[:2]] == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    assert c.targets[:2].tolist() == [[4, 5], [6, 7]]
    with pytest.raises(TspruneError, match="not a fev task: it has no iter_windows"):
        from_fev("task")
    with pytest.raises(TspruneError, match="has 1 steps; the task's horizon is 2"):
        from_fev(Task([{"id": "A", "target": list(range(7))}]))


# --- suites --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 15, 40, 10_000])
def test_a_sample_keeps_the_shares(count: int) -> None:
    suite = pocket()
    sample = suite.sample(count, seed=3)
    assert len(sample) == min(count, len(suite))
    assert len(sample.configurations) == min(count, len(suite.configurations))
    assert sample.fingerprint == suite.sample(count, seed=3).fingerprint
    if count == 40:
        whole = {c.name: len(c) for c in suite.configurations}
        for c in sample.configurations:
            assert abs(len(c) - whole[c.name] * count / len(suite)) <= 1
        assert sample.fingerprint != suite.sample(count, seed=4).fingerprint


def test_a_sample_needs_a_count() -> None:
    with pytest.raises(TspruneError, match="count must be at least 1"):
        pocket().sample(0)


def test_any_suite_is_a_table() -> None:
    part = pocket().only(["us_employment/M/short"])
    frame = part.to_frame()
    (c,) = part.configurations
    assert list(frame.columns) == ["configuration", "unique_id", "ds", "y"]
    assert frame["unique_id"].nunique() == len(np.unique(c.series))
    windows = {"horizon": c.horizon, "season": c.season, "windows": int(np.sum(c.series == c.series[0]))}
    (again,) = from_frame(frame, freq=c.freq, id_column="unique_id", **windows).configurations
    np.testing.assert_array_equal(again.targets, c.targets)
    for ours, theirs in zip(again.contexts, c.contexts, strict=True):
        np.testing.assert_array_equal(ours, theirs)
